//! Steps that are left out although they are finite: rules against a plain program in f64, the GPU against the CPU in every bit, and
//! what such a step must leave alone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::run::{about, drift, spike};
use common::stepping::{Here, There};
use common::{Named, Placing, Random, SCOPES, Tensor, bits, budget, gpu, named, norm, traced};
use gradclip::cpu::{self, GradMut};
use gradclip::layout::{Inputs, Progress};
use gradclip::records::{SKIPPED, SPIKE};
use gradclip::{
    Adam, Adapt, Clip, ClipError, GiveUp, History, LossScale, NonFinite, Remembers, Rule, Skip, Units,
};
use gradclip_verify::oracle::skips::{Found, program};

const STEPS: usize = budget::RUN_STEPS;
const NAN_STEP: usize = 250;
const INF_LOSS: usize = 310;
const SIZES: [usize; 3] = [5, 300, 40];

/// Gradients and loss of each step: both drift down with noise, and spike now and then, together or by themselves.
fn run() -> Vec<(Vec<Vec<f32>>, f32)> {
    let mut random = Random(41);
    let spikes: Vec<[f32; 2]> =
        (0..STEPS).map(|step| [(); 2].map(|()| spike(&mut random, step, 20))).collect();
    let step = |(step, [of_norm, of_loss]): (usize, &[f32; 2])| {
        let drift = drift(step);
        let mut tensors = about(&mut random, &SIZES, drift * of_norm);
        if step == NAN_STEP {
            tensors[1][17] = f32::NAN;
        }
        // A loss may be negative.
        let loss = drift - 1.0 + 0.2 * random.unit() + (of_loss - 1.0);
        (tensors, if step == INF_LOSS { f32::INFINITY } else { loss })
    };
    spikes.iter().enumerate().map(step).collect()
}

/// The rules, and what of them can happen in the run.
fn rules() -> Vec<Skip> {
    vec![
        Skip::non_finite().above(8.0),
        Skip::z_score(3.0),
        Skip::z_score(6.0).window(16).with_loss(),
        Skip::z_score(2.5).window(40).first(41).above(100.0),
        Skip::z_score(4.0).window(9).first(3).with_loss().remembers(Remembers::Passed),
        Skip::z_score(3.0).window(8).with_loss().remembers(Remembers::All),
        Skip::z_score(1.0).window(20).max_consecutive(1, GiveUp::LetThrough),
        Skip::z_score(1.0).window(20).max_consecutive(1, GiveUp::LetAllThrough),
        Skip::z_score(0.5).window(5).with_loss().max_consecutive(3, GiveUp::Tell),
    ]
}

/// Against the program in `f64`, which looks at gradients of which it has the norm itself. Decisions that would be closer than what
/// rounding moves would tell nothing: there are none.
fn assert_follows(run: &[(Vec<Vec<f32>>, f32)], skip: Skip, found: &[gradclip::SkipReport]) {
    let mut program = program(skip);
    let mut nearest = f64::INFINITY;
    for (step, ((tensors, loss), ours)) in run.iter().zip(found).enumerate() {
        let want: Found = program(norm(tensors), f64::from(*loss));
        assert_eq!(*ours, want.report, "step {step}: {skip:?}");
        nearest = nearest.min(want.margin);
    }
    let spikes = found.last().map_or(0, |last| last.spikes);
    assert!(spikes > 5 && (spikes as usize) < STEPS / 2, "{spikes} spikes: {skip:?}");
    // Both sides are off by (1 + sigma) 2^-22 of the largest value, which the program's margin is relative to, and four roundings.
    assert!(nearest > 2f64.powi(-20), "{nearest:e} from the other decision: {skip:?}");
}

/// What a step found, and all that it left.
fn on_cpu(
    run: &[(Vec<Vec<f32>>, f32)],
    clip: &Clip,
) -> (Vec<gradclip::SkipReport>, Vec<Vec<Tensor>>, History) {
    let mut history = History::default();
    let (mut found, mut left) = (Vec::new(), Vec::new());
    for (gradients, loss) in run {
        let mut tensors = named(gradients);
        history.set_loss(*loss);
        let report = cpu::clip_with(&mut common::grads(&mut tensors), clip, &mut history).unwrap();
        let skip = report.skip.unwrap();
        assert_eq!(report.segments[0].skipped, skip.left_out());
        found.push(skip);
        left.push(tensors);
    }
    (found, left, history)
}

#[test]
fn rules_follow_a_plain_program_here_and_there() {
    let (gpu, run) = (gpu(), run());
    for skip in rules() {
        for clip in [
            Clip::global_norm(1.0).skip(skip),
            Clip::global_norm(1.0).skip(skip).adapt(Adapt::Average { factor: 1.5, decay: 0.9 }),
        ] {
            let (found, left, history) = on_cpu(&run, &clip);
            if clip.adapt.is_none() {
                assert_follows(&run, skip, &found);
            }
            for (((gradients, _), tensors), found) in run.iter().zip(&left).zip(&found) {
                let same = tensors
                    .iter()
                    .zip(gradients)
                    .all(|(t, g)| bits(&[t.data.floats()]) == bits(std::slice::from_ref(g)));
                assert!(same || !found.left_out(), "a step that is left out was changed: {clip:?}");
            }
            let Some(gpu) = &gpu else { continue };
            let grads = gpu.separate(&run[0].0);
            let pass = gpu.clipper.prepare(&grads, &clip).unwrap();
            let kept = (size_of::<Progress>() * run.len()) as u64;
            let log = gpu.storage(kept);
            for (step, (gradients, loss)) in run.iter().enumerate() {
                gpu.write(&grads, gradients);
                gpu.queue.write_buffer(
                    pass.inputs(),
                    0,
                    bytemuck::bytes_of(&Inputs { loss: *loss, norm: f32::INFINITY }),
                );
                gpu.submit(|encoder| {
                    pass.record(encoder);
                    let bytes = size_of::<Progress>() as u64;
                    encoder.copy_buffer_to_buffer(pass.progress(), 0, &log, bytes * step as u64, bytes);
                });
                if found[step].is_spike() || step % 50 == 0 {
                    let there = common::contents(gpu, &grads, gradients);
                    for (ours, theirs) in there.iter().zip(&left[step]) {
                        assert_eq!(
                            bits(std::slice::from_ref(ours)),
                            bits(&[theirs.data.floats()]),
                            "step {step} on {}",
                            gpu.name
                        );
                    }
                }
            }
            let all: Vec<Progress> = gpu.read(&log);
            for (step, (progress, found)) in all.iter().zip(&found).enumerate() {
                let same =
                    (progress.strikes, progress.spikes) == (found.in_a_row as u32, found.spikes as u32);
                assert!(same, "step {step} on {}: {progress:?}, {found:?}, {clip:?}", gpu.name);
            }
            let mut saved = gpu.save(&pass);
            // A loss that is infinite is one bit pattern, so that histories compare.
            saved.set_loss(run[STEPS - 1].1);
            assert_eq!(saved, history, "{clip:?} on {}", gpu.name);
        }
    }
}

/// Values near each other, far apart, negative, huge and subnormal: the same decisions on both.
#[test]
fn extremes_are_the_same_everywhere() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random(5);
    let mut of = |kind: usize| match kind {
        0 => f32::from_bits(random.bits() as u32 & 0x7f7f_ffff),
        1 => 1.0 + f32::EPSILON * (random.bits() % 16) as f32,
        2 => f32::from_bits((random.bits() % 4096) as u32),
        _ => 3e38 * random.unit().abs(),
    };
    let series: Vec<(f32, f32)> = (0..160).map(|i| (of(i / 40), of((i / 10) % 4))).collect();
    let signs: Vec<f32> = (0..160).map(|i| if i % 3 == 0 { -1.0 } else { 1.0 }).collect();
    for skip in [
        Skip::z_score(0.0).window(300).first(3).with_loss(),
        Skip::z_score(1.0).window(2).with_loss().remembers(Remembers::All),
        Skip::z_score(1e6).window(7).first(4).with_loss().remembers(Remembers::Passed),
        Skip::z_score(2.0).window(65_536).first(5).with_loss().above(1e-40),
    ] {
        let clip = Clip::global_norm(1.0).skip(skip);
        let grads = gpu.separate(&[vec![0.0]]);
        let pass = gpu.clipper.prepare(&grads, &clip).unwrap();
        let mut history = History::default();
        let mut spikes = 0;
        for (i, ((norm, loss), sign)) in series.iter().zip(&signs).enumerate() {
            history.set_loss(loss * sign);
            let mut g = [*norm];
            let report = cpu::clip_with(&mut [GradMut::new("t0", &mut g)], &clip, &mut history).unwrap();
            spikes = report.skip.unwrap().spikes;
            gpu.queue.write_buffer(pass.inputs(), 0, bytemuck::bytes_of(&(loss * sign)));
            gpu.write(&grads, &[[*norm]]);
            let there = gpu.run(&pass);
            assert_eq!(there.skip, report.skip, "step {i}, {norm:e} {loss:e}: {skip:?} on {}", gpu.name);
        }
        assert!(spikes > 0, "{skip:?}");
        assert_eq!(gpu.save(&pass), history, "{skip:?} on {}", gpu.name);
    }
}

/// In every scope and under every rule a spike leaves all segments, excluded ones too, and thresholds that adapt keep what they remember.
#[test]
fn a_spike_leaves_everything() {
    let gpu = gpu();
    let shapes = [[6u64, 5], [6, 800], [6, 3], [6, 40]];
    let given = |size: f32| {
        let mut random = Random(9);
        let mut tensors: Vec<Tensor> = (shapes.iter().enumerate())
            .map(|(i, shape)| {
                let values: Vec<f32> = (0..shape[0] * shape[1]).map(|_| size * random.unit()).collect();
                Tensor::new(format!("t{i}"), values.clone()).shape(shape).parameter(&values)
            })
            .collect();
        tensors[3].group = Some(Named::excluded("free"));
        tensors
    };
    let zscore = Adapt::ZScore { decay: 0.5, z: 1.0, warm_up: 1, reaction: gradclip::Reaction::Mean };
    let mut clips: Vec<Clip> = SCOPES.iter().map(|&scope| Clip::global_norm(0.5).scope(scope)).collect();
    clips.extend([
        Clip::value(0.01),
        Clip::sign(0.01),
        Clip::normalize(3.0),
        Clip::block_rms(0.01),
        Clip::agc(0.01, Units::OutputFirst),
        Clip::per_tensor_norm(0.5).total(0.7),
        Clip::adagc(1.0).adapt(Adapt::AdaGc { factor: 1.05, decay: 0.5, warm_up: 1 }),
        Clip::per_tensor_norm(1.0).adapt(Adapt::Aggc(gradclip::Aggc::new(0.9, 1.1, 0.5))),
        Clip::per_tensor_norm(1.0).adapt(Adapt::Mean { factor: 0.5, window: 3 }),
        Clip::per_row_norm(0.1).adapt(Adapt::Quantile { quantile: 0.5, rate: 0.2 }),
        Clip::global_norm(1.0).adapt(zscore).unscale(0.5),
        Clip::global_norm(1.0).loss_scale(LossScale::default().initial(4.0)),
    ]);
    for clip in clips {
        let clip = clip.skip(Skip::non_finite().above(if clip.rule == Rule::Value { 2.0 } else { 1e3 }));
        let (mut history, mut norms) = (History::default(), Vec::new());
        for size in [1.0, 1e4, 1.0] {
            let (before, mut after) = (given(size), given(size));
            let mut grads: Vec<GradMut<'_>> = common::grads(&mut after);
            let report = cpu::clip_with(&mut grads, &clip, &mut history).unwrap();
            let spike = size > 1.0;
            assert_eq!(report.skip.unwrap().above, spike, "{clip:?}");
            assert_eq!(report.skip.unwrap().is_spike(), spike);
            assert_eq!(report.changed_segments == 0, spike, "{clip:?}");
            let same = before.iter().zip(&after).all(|(a, b)| a.data.floats() == b.data.floats());
            assert_eq!(same, spike, "{clip:?}");
            assert!(report.segments.iter().all(|s| s.skipped == spike && !(spike && s.clipped)), "{clip:?}");
            assert_eq!(report.non_finite(), 0);
            norms.push(report.global_norm);
        }
        // The spike came into no history: the third step is decided as if it had been the second.
        let mut without = History::default();
        for size in [1.0, 1.0] {
            cpu::clip_with(&mut common::grads(&mut given(size)), &clip, &mut without).unwrap();
        }
        assert_eq!(history.thresholds(), without.thresholds(), "{clip:?}");
        assert!(norms[1] > 1e2 * norms[0]);
        let Some(gpu) = &gpu else { continue };
        for placing in [Placing::APART, Placing::PACKED] {
            let mut fixed = clip;
            (fixed.adapt, fixed.loss_scale) = (None, None);
            let (trace, _) = traced(&given(1e4), &fixed).unwrap();
            assert!(trace.outcomes.iter().all(|o| o.flags & (SKIPPED | SPIKE) == SKIPPED | SPIKE));
            let placed = gpu.place(&given(1e4), placing);
            let pass = gpu.clipper.prepare(&placed.grads, &clip).unwrap();
            let report = gpu.run(&pass);
            assert!(report.skip.unwrap().above && report.changed_segments == 0, "{clip:?} on {}", gpu.name);
            let staged = gpu.submit(|encoder| gpu.stage(encoder, &placed.buffers));
            assert!(placed.untouched(&gpu.collect(&staged).unwrap()), "{clip:?} on {}", gpu.name);
        }
    }
}

/// No parameter and no moment moves, and the step does not count, wherever the steps are made.
#[test]
fn an_optimiser_makes_no_step() {
    let gpu = gpu();
    let tensors: Vec<Tensor> = named([vec![1.0f32, 2.0], vec![3.0]])
        .into_iter()
        .zip([vec![0.5f32, -0.5], vec![0.25]])
        .map(|(tensor, p)| tensor.parameter(&p))
        .collect();
    let clip =
        Clip::global_norm(1.0).skip(Skip::non_finite().above(10.0).max_consecutive(2, GiveUp::LetThrough));
    let mut here = Here::new(&tensors, &clip, Adam::new(0.1));
    let mut there = gpu.as_ref().map(|gpu| There::new(gpu, &tensors, &clip, Adam::new(0.1)));
    let norms = [3.0f32, 30.0, 4.0, 50.0, f32::INFINITY, 60.0, 70.0, 5.0, 80.0];
    // What is not finite never moves anything, and is one of those in a row.
    let moved = [true, false, true, false, false, true, true, true, false];
    for (norm, moved) in norms.into_iter().zip(moved) {
        let gradients = [vec![norm, 0.0], vec![0.0]];
        let (before, updates) = (here.parameters(), here.history.updates());
        here.put(&gradients);
        let report = here.step();
        assert_eq!(here.history.updates() > updates, moved, "{norm}");
        assert_eq!(here.parameters() != before, moved, "{norm}");
        assert_eq!(report.skip.unwrap().left_out(), !moved);
        let Some(there) = &mut there else { continue };
        let before = (there.parameters(), there.moments());
        there.put(&gradients);
        there.step();
        let after = (there.parameters(), there.moments());
        assert_eq!(after != before, moved, "{norm}");
        let gpu = gpu.as_ref().unwrap();
        let progress: Progress = gpu.read(there.stepper.progress())[0];
        assert_eq!(u64::from(progress.updates), here.history.updates());
    }
}

/// After so many in a row what is not finite goes through, as PyTorch's and Optax' formulas have it where nothing is checked: NaN.
#[test]
fn what_is_not_finite_is_let_through() {
    let gpu = gpu();
    let skip = Skip::non_finite().max_consecutive(2, GiveUp::LetAllThrough);
    let clip = Clip::global_norm(1.0).skip(skip);
    let mut history = History::default();
    let there = gpu.as_ref().map(|gpu| {
        let grads = gpu.separate(&[vec![0.0, 0.0]]);
        let pass = gpu.clipper.prepare(&grads, &clip).unwrap();
        (gpu, grads, pass)
    });
    for (i, let_through) in [false, false, true, true].into_iter().enumerate() {
        let given = [f32::INFINITY, 1.0];
        let mut g = given;
        let report = cpu::clip_with(&mut [GradMut::new("t0", &mut g)], &clip, &mut history).unwrap();
        let skip = report.skip.unwrap();
        assert_eq!((skip.non_finite, skip.let_through, skip.in_a_row), (true, let_through, i as u64 + 1));
        assert_eq!(g.iter().all(|x| x.is_nan()), let_through);
        let Some((gpu, grads, pass)) = &there else { continue };
        gpu.write(grads, &[given]);
        assert_eq!(gpu.run(pass).skip, report.skip, "on {}", gpu.name);
        let left = common::contents(gpu, grads, &[given.to_vec()]);
        assert_eq!(left[0].iter().all(|x| x.is_nan()), let_through, "on {}", gpu.name);
    }
    let mut g = [3.0f32, 4.0];
    let report = cpu::clip_with(&mut [GradMut::new("t0", &mut g)], &clip, &mut history).unwrap();
    assert_eq!((report.skip.unwrap().in_a_row, g), (0, [0.6, 0.8]));
}

/// A bound needs no history, and `f64` gradients have one too.
#[test]
fn a_bound_on_f64() {
    let clip = Clip::per_tensor_norm(1.0).skip(Skip::non_finite().above(5.0));
    for (norm, left_out) in [(5.0, false), (5.000_000_000_000_001, true), (1e300, true)] {
        let (mut a, mut b) = ([norm], [0.5f32]);
        let report = cpu::clip(&mut [GradMut::f64("a", &mut a), GradMut::new("b", &mut b)], &clip);
        // The norm of both is above 5 in any case.
        assert_eq!(report.unwrap().skip.unwrap().above, norm > 4.9);
        assert_eq!((a, b), ([norm], [0.5]));
        let mut alone = [norm];
        let report = cpu::clip(&mut [GradMut::f64("a", &mut alone)], &clip).unwrap();
        assert_eq!((report.skip.unwrap().left_out(), alone == [norm]), (left_out, left_out), "{norm}");
        assert_eq!(report.segments[0].skipped, left_out);
    }
    let counts = Clip::global_norm(1.0).skip(Skip::z_score(3.0));
    let refused = cpu::clip_with(&mut [GradMut::f64("a", &mut [1.0])], &counts, &mut History::default());
    assert!(matches!(refused, Err(ClipError::Combination { .. })), "{refused:?}");
}

#[test]
fn histories_go_on_where_they_were_saved() {
    let (gpu, run) = (gpu(), run());
    let clip = Clip::global_norm(1.0).skip(Skip::z_score(3.0).window(20).with_loss());
    let (_, _, whole) = on_cpu(&run[..200], &clip);
    let (_, _, half) = on_cpu(&run[..100], &clip);
    let mut history = History::from_bytes(&half.to_bytes()).unwrap();
    assert_eq!(history, half);
    let go_on = |history: &mut History| {
        for (gradients, loss) in &run[100..200] {
            history.set_loss(*loss);
            cpu::clip_with(&mut common::grads(&mut named(gradients)), &clip, history).unwrap();
        }
    };
    go_on(&mut history);
    assert_eq!(history, whole);
    // Bounds may change within a run; what is kept may not.
    let wider = Clip::global_norm(1.0).skip(Skip::z_score(3.5).window(20).with_loss().above(1e6));
    let mut going_on = half.clone();
    cpu::clip_with(&mut common::grads(&mut named(&run[100].0)), &wider, &mut going_on).unwrap();
    let other = Clip::global_norm(1.0).skip(Skip::z_score(3.0).window(21).with_loss());
    let refused = cpu::clip_with(&mut common::grads(&mut named(&run[0].0)), &other, &mut history);
    assert!(matches!(refused, Err(ClipError::State { .. })));
    // A rule that keeps no series has found something all the same, which a clip without one would never take back.
    let bound = Clip::global_norm(1.0).skip(Skip::non_finite().above(1.0));
    let mut found = History::default();
    cpu::clip_with(&mut [GradMut::new("t0", &mut [3.0f32])], &bound, &mut found).unwrap();
    let without =
        cpu::clip_with(&mut [GradMut::new("t0", &mut [3.0f32])], &Clip::global_norm(1.0), &mut found);
    assert!(matches!(without, Err(ClipError::State { .. })), "{without:?}");
    let Some(gpu) = gpu else { return };
    let grads = gpu.separate(&run[0].0);
    let pass = gpu.clipper.prepare(&grads, &clip).unwrap();
    pass.restore_history(&gpu.queue, &half).unwrap();
    for (gradients, loss) in &run[100..200] {
        gpu.write(&grads, gradients);
        gpu.queue.write_buffer(pass.inputs(), 0, bytemuck::bytes_of(loss));
        gpu.submit(|encoder| pass.record(encoder));
    }
    assert_eq!(gpu.save(&pass), whole, "on {}", gpu.name);
}

#[test]
fn constants_out_of_range_are_refused() {
    for skip in [
        Skip::non_finite().above(f64::NAN),
        Skip::non_finite().above(-1.0),
        Skip::non_finite().above(1e39),
        Skip::non_finite().with_loss(),
        Skip::z_score(-1.0),
        Skip::z_score(f32::NAN),
        Skip::z_score(2e6),
        Skip::z_score(1.0).window(1),
        Skip::z_score(1.0).window(65_537),
        Skip::z_score(1.0).first(2),
        Skip::z_score(1.0).window(10).first(12),
    ] {
        let refused = Clip::global_norm(1.0).skip(skip).validate();
        assert!(matches!(refused, Err(ClipError::Skip { .. })), "{skip:?}: {refused:?}");
    }
    let remembers = Clip::global_norm(1.0).skip(Skip::z_score(1.0));
    let refused = cpu::clip(&mut [GradMut::new("a", &mut [1.0f32])], &remembers);
    assert!(matches!(refused, Err(ClipError::Combination { .. })));
    let overflows = Clip::global_norm(1.0).loss_scale(LossScale::default());
    let all = Skip::non_finite().max_consecutive(5, GiveUp::LetAllThrough);
    assert!(matches!(overflows.skip(all).validate(), Err(ClipError::Combination { .. })));
    // Policies other than skipping go their own way.
    let zero = Clip::global_norm(1.0).skip(Skip::non_finite().above(1.0)).on_non_finite(NonFinite::Zero);
    let mut g = [f32::NAN, 1.0];
    let report = cpu::clip(&mut [GradMut::new("a", &mut g)], &zero).unwrap();
    assert_eq!((g, report.skip.unwrap().left_out()), ([0.0, 0.0], false));
}

/// A window of 65,536 values: the largest there may be, all alike, or of all magnitudes; on the device and on the CPU path, with workgroups of
/// all sizes.
#[test]
fn the_longest_window() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random(3);
    let kinds: [&mut dyn FnMut() -> f32; 3] =
        [&mut || f32::MAX, &mut || f32::from_bits((random.bits() as u32) & 0x7f7f_ffff), &mut || 1.0];
    let skip = Skip::z_score(0.9).window(65_536).first(65_537).with_loss();
    let clip = Clip::global_norm(1.0).skip(skip);
    for kind in kinds {
        let mut history = History::default();
        let _ = cpu::clip_with(&mut [GradMut::new("t0", &mut [0.0f32])], &clip, &mut history).unwrap();
        let mut bytes = history.to_bytes();
        // A saved history ends with the norms and the losses, and before them the count of those that are kept.
        let at = bytes.len() - 2 * 65_536 * 4;
        bytes[at - 4..at].copy_from_slice(&70_000u32.to_le_bytes());
        for (i, word) in bytes[at..].chunks_exact_mut(4).enumerate() {
            let value = kind();
            let sign = if i >= 65_536 && i % 2 == 1 { -1.0 } else { 1.0 };
            word.copy_from_slice(&(value * sign).to_le_bytes());
        }
        let begin = History::from_bytes(&bytes).unwrap();
        for (norm, loss) in [(f32::MAX, f32::MAX), (1.0, -1.0), (1.000_000_2, 0.0), (0.0, 1e38)] {
            let mut history = begin.clone();
            history.set_loss(loss);
            let report = cpu::clip_with(&mut [GradMut::new("t0", &mut [norm])], &clip, &mut history);
            let report = report.unwrap().skip.unwrap();
            for size in [32, 256] {
                let clipper = gpu.clipper_with(gradclip::ClipperOptions::default().workgroup_size(size));
                let grads = gpu.separate(&[vec![norm]]);
                let pass = clipper.prepare(&grads, &clip).unwrap();
                pass.restore_history(&gpu.queue, &begin).unwrap();
                gpu.queue.write_buffer(pass.inputs(), 0, bytemuck::bytes_of(&loss));
                let there = gpu.run(&pass).skip.unwrap();
                assert_eq!(there, report, "{norm:e} {loss:e}, {size} on {}", gpu.name);
                assert!(gpu.save(&pass) == history, "{norm:e} {loss:e}, {size} on {}", gpu.name);
            }
        }
    }
}

/// A pass that was prepared to measure leaves gradients alone, but where the rule lets through what is not finite; sums of clipped
/// micro-batches get nothing from a spike; another pass goes on where the first one is.
#[test]
fn other_ways_to_use_a_rule() {
    let Some(gpu) = gpu() else { return };
    let all = Skip::non_finite().max_consecutive(0, GiveUp::LetAllThrough);
    for clip in [Clip::measure().skip(all), Clip::measure().skip(Skip::non_finite().above(1.0))] {
        for given in [[f32::INFINITY, 1.0], [3.0, 4.0]] {
            let mut g = given;
            let report =
                cpu::clip_with(&mut [GradMut::new("t0", &mut g)], &clip, &mut History::default()).unwrap();
            let grads = gpu.separate(&[given.to_vec()]);
            let pass = gpu.clipper.prepare(&grads, &clip).unwrap();
            let there = gpu.run(&pass);
            assert_eq!((there.skip, there.changed_segments), (report.skip, report.changed_segments));
            let left = common::contents(&gpu, &grads, &[given.to_vec()]);
            assert_eq!(bits(&left), bits(&[g.to_vec()]), "{clip:?} {given:?}");
        }
    }
    let clip = Clip::global_norm(1.0).skip(Skip::non_finite().above(10.0));
    let sum = gpu.upload(bytemuck::cast_slice(&[0.0f32; 2]));
    let micro = gpu.separate(&[vec![0.0, 0.0]]);
    let named = [micro[0].clone().accumulator(&sum, 0)];
    let sums = gpu.clipper.prepare_clipped_accumulation(&named, &clip).unwrap();
    for (i, values) in [[30.0f32, 40.0], [3.0, 4.0], [300.0, 0.0], [0.3, 0.4]].into_iter().enumerate() {
        gpu.write(&micro, &[values]);
        gpu.submit(|e| if i == 0 { sums.record_first(e) } else { sums.record_next(e) });
    }
    assert_eq!(gpu.read::<f32>(&sum), [0.6 + 0.3, 0.8 + 0.4]);

    let clip = Clip::per_tensor_norm(1.0).skip(Skip::z_score(3.0).window(4).first(3));
    let grads = gpu.separate(&[vec![1.0], vec![1.0]]);
    let pass = gpu.clipper.prepare(&grads, &clip).unwrap();
    for norm in [1.0f32, 1.1, 0.9] {
        gpu.write(&grads, &[[norm], [norm]]);
        gpu.run(&pass);
    }
    assert!(matches!(pass.set_total(&gpu.queue, 1.0), Err(ClipError::Combination { .. })));
    let moved = gpu.separate(&[vec![50.0], vec![1.0]]);
    let next = gpu.clipper.prepare_after(&pass, &moved, &clip).unwrap();
    assert!(gpu.run(&next).skip.unwrap().norm);
    assert!(gpu.clipper.prepare_after(&pass, &moved, &Clip::per_tensor_norm(1.0)).is_err());
}

/// What is excluded, or a parameter, is not what the rule looks at, whatever the element type.
#[test]
fn what_is_not_limited_is_not_looked_at() {
    let clip = Clip::global_norm(1.0).skip(Skip::non_finite().above(9.0));
    let free = gradclip::Group::excluded("free");
    let (mut a, mut b, mut wide) = ([1.0f32], [f32::INFINITY], [1.0f64]);
    let single = [GradMut::new("a", &mut a), GradMut::new("b", &mut b).group(&free)];
    let mut single = single;
    let found = cpu::clip(&mut single, &clip).unwrap().skip.unwrap();
    assert_eq!((found.non_finite, found.left_out()), (false, false));
    let mut double = [GradMut::f64("a", &mut wide), GradMut::new("b", &mut b).group(&free)];
    assert_eq!(cpu::clip(&mut double, &clip).unwrap().skip, Some(found));
}

/// A trainer watches the norm of its sums, and goes on with what it watched after it was saved; a session keeps norms, too.
#[test]
fn loops_and_sessions() {
    let skip = Skip::z_score(3.0).window(6).first(3);
    let clip = Clip::global_norm(10.0).skip(skip);
    let like = [0.0f32; 2];
    let step = |trainer: &mut cpu::Trainer, w: &mut [f32; 2], norm: f32| {
        let g = [norm, 0.0];
        let _ = trainer.record([(&g[..], &mut w[..])]).unwrap();
        trainer.record([(&g[..], &mut w[..])]).unwrap()
    };
    let mut w = [0.0f32; 2];
    let prepare = |w: &mut [f32; 2]| {
        let steps = [gradclip::cpu::StepMut::new("w", &like[..], &mut w[..])];
        cpu::prepare_training(&steps, &clip, Adam::new(0.1), 2).unwrap()
    };
    let mut trainer = prepare(&mut w);
    for norm in [1.0, 1.2, 0.9, 1.1] {
        assert!(step(&mut trainer, &mut w, norm));
    }
    let saved = trainer.save([&mut w]).unwrap();
    let mut other = prepare(&mut w);
    other.load(&saved, [&mut w]).unwrap();
    for trainer in [&mut trainer, &mut other] {
        let before = w;
        assert!(step(trainer, &mut w, 40.0));
        let report = trainer.step().report().unwrap();
        assert!(report.skip.unwrap().norm && report.updates == 4 && w == before);
        // A shorter step is judged as well.
        let g = [70.0f32, 0.0];
        assert!(!trainer.record([(&g[..], &mut w[..])]).unwrap());
        assert!(trainer.finish([&mut w[..]]).unwrap());
        assert_eq!((w, trainer.step().report().unwrap().skip.unwrap().in_a_row), (before, 2));
    }
    let session = gradclip::Session::open(&gradclip::Target::Cpu).unwrap();
    for (norm, spike) in [(1.0f32, false), (1.2, false), (0.9, false), (40.0, true)] {
        let report = session.clip(&mut [GradMut::new("g", &mut [norm])], &clip).unwrap();
        assert_eq!(report.skip.unwrap().norm, spike);
    }
    for clip in [Clip::global_norm(1.0).use_norm(true), Clip::global_norm(1.0).skip(skip.with_loss())] {
        assert!(session.clip(&mut [GradMut::new("g", &mut [1.0f32])], &clip).is_err());
    }
}
