//! Adaptive thresholds over 500 steps of a run with drift, noise, spikes and one NaN: each rule
//! against a plain f64 program, the GPU against the CPU in every bit, and histories that go on where
//! they were saved.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::run::{about, drift, spike};
use common::{Gpu, Named, Placing, Random, Tensor, assert_close, budget, gpu, named, norm, tolerance};
use gradclip::cpu;
use gradclip::layout::Outcome;
use gradclip::{Adapt, Aggc, Clip, ClipError, Grad, History, Pass, Reaction};
use gradclip_verify::oracle::thresholds::{interval, program};

const STEPS: usize = budget::RUN_STEPS;
const NAN_STEP: usize = 250;
const SIZES: [usize; 3] = [5, 300, 40];

/// Gradients of each step: a norm that drifts down, noise of a fifth, a spike now and then.
fn run() -> Vec<Vec<Vec<f32>>> {
    let mut random = Random(77);
    (0..STEPS)
        .map(|step| {
            let spike = spike(&mut random, step, 25);
            let mut tensors = about(&mut random, &SIZES, drift(step) * spike);
            if step == NAN_STEP {
                tensors[1][17] = f32::NAN;
            }
            tensors
        })
        .collect()
}

/// The thresholds of every step, limit by limit, on the CPU.
fn on_cpu(run: &[Vec<Vec<f32>>], clip: &Clip, history: &mut History) -> Vec<Vec<f32>> {
    run.iter()
        .map(|tensors| {
            let mut tensors = named(tensors);
            let report = cpu::clip_with(&mut common::grads(&mut tensors), clip, history).unwrap();
            report.segments.iter().map(|s| s.threshold as f32).collect()
        })
        .collect()
}

/// The outcomes of every step, without a read-back until the end.
fn on_gpu(gpu: &Gpu, run: &[Vec<Vec<f32>>], grads: &[Grad], pass: &Pass) -> Vec<Vec<Outcome>> {
    let bytes = pass.outcome_bytes();
    let log = gpu.storage(bytes * run.len() as u64);
    for (step, tensors) in run.iter().enumerate() {
        gpu.write(grads, tensors);
        gpu.submit(|encoder| {
            pass.record(encoder);
            encoder.copy_buffer_to_buffer(pass.outcomes(), 0, &log, bytes * step as u64, bytes);
        });
    }
    let all: Vec<Outcome> = gpu.read(&log);
    all.chunks(all.len() / run.len()).map(<[Outcome]>::to_vec).collect()
}

/// Against the program, step by step; the step with the NaN is not shown to it. Counts what is clipped. Where nothing
/// is reduced any threshold at or above the norm will do.
fn assert_follows(run: &[Vec<Vec<f32>>], thresholds: &[Vec<f32>], clip: &Clip, relative: f64) -> usize {
    let mut clipped = 0;
    // AdaGC has a limit a tensor, the others one for all.
    for limit in 0..thresholds[0].len() {
        let mut program = program(clip);
        for (step, (tensors, ours)) in run.iter().zip(thresholds).enumerate() {
            let whole = norm(tensors);
            let own = if thresholds[0].len() > 1 { norm(&tensors[limit..=limit]) } else { whole };
            if own.is_nan() || (step == NAN_STEP && thresholds[0].len() == 1) {
                continue;
            }
            let (ours, want) = (f64::from(ours[limit]), program(&[own, whole]));
            let what = format!("step {step}, limit {limit}, norm {own}, {clip:?}");
            match want.is_nan() {
                true => assert!(ours >= own * (1.0 - tolerance::NORM_AFTER), "{what}: {ours}"),
                false => assert_close([ours], [want], relative, 0.0, &what),
            }
            clipped += usize::from(own > want);
        }
    }
    clipped
}

/// One rule on the CPU against the program, and on the GPU against the CPU.
fn check(gpu: Option<&Gpu>, clip: &Clip, relative: f64) {
    let run = run();
    let mut history = History::default();
    let thresholds = on_cpu(&run, clip, &mut history);
    let clipped = assert_follows(&run, &thresholds, clip, relative);
    let least = if thresholds[0].len() > 1 { 50 } else { 5 };
    assert!(clipped > least, "{clipped} steps clipped tell little");
    assert_eq!(history.steps(), STEPS as u64);
    let Some(gpu) = gpu else { return };
    let grads = gpu.separate(&run[0]);
    let pass = gpu.clipper.prepare(&grads, clip).unwrap();
    let outcomes = on_gpu(gpu, &run, &grads, &pass);
    for (step, (ours, theirs)) in outcomes.iter().zip(&thresholds).enumerate() {
        let ours: Vec<u32> = ours[..theirs.len()].iter().map(|o| o.threshold.to_bits()).collect();
        let theirs: Vec<u32> = theirs.iter().map(|t| t.to_bits()).collect();
        assert_eq!(ours, theirs, "step {step} on {}: {clip:?}", gpu.name);
    }
    assert_eq!(gpu.save(&pass), history, "{clip:?} on {}", gpu.name);
}

#[test]
fn mean_over_a_window() {
    let gpu = gpu();
    for window in [1, 50, 10_000] {
        let clip = Clip::global_norm(0.5).adapt(Adapt::Mean { factor: 1.25, window });
        check(gpu.as_deref(), &clip, tolerance::MEAN);
    }
}

#[test]
fn exponential_average() {
    let clip = Clip::global_norm(f32::INFINITY).adapt(Adapt::Average { factor: 1.5, decay: 0.97 });
    check(gpu().as_deref(), &clip, tolerance::average(4.0, 0.03));
}

#[test]
fn autoclip() {
    let gpu = gpu();
    for (percentile, window) in [(10.0, 10_000), (90.0, 64), (0.0, 10), (33.3, 77)] {
        let clip = Clip::global_norm(1.0).adapt(Adapt::Percentile { percentile, window });
        check(gpu.as_deref(), &clip, tolerance::percentile(percentile.into()));
    }
}

#[test]
fn zclip_and_its_reactions() {
    let gpu = gpu();
    for reaction in [Reaction::Mean, Reaction::Max, Reaction::Reciprocal] {
        let adapt = Adapt::ZScore { decay: 0.97, z: 2.5, warm_up: 25, reaction };
        check(gpu.as_deref(), &Clip::global_norm(4.0).adapt(adapt), tolerance::deviation(0.03));
    }
}

/// The same of norms before this step's.
#[test]
fn percentile_of_the_past() {
    let gpu = gpu();
    for (percentile, window) in [(90.0, 64), (33.3, 1)] {
        let clip = Clip::global_norm(f32::INFINITY).adapt(Adapt::PastPercentile { percentile, window });
        check(gpu.as_deref(), &clip, tolerance::percentile(percentile.into()));
    }
}

/// Every rule within bounds, each of which binds at some steps: at least so many of each kind.
#[test]
fn bounds_of_every_rule() {
    let gpu = gpu();
    let zscore = Adapt::ZScore { decay: 0.9, z: 0.5, warm_up: 5, reaction: Reaction::Max };
    for (clip, bounds, relative) in [
        (Clip::global_norm(9.0).adapt(Adapt::Mean { factor: 1.0, window: 20 }), (1.5, 8.0), tolerance::MEAN),
        (
            Clip::global_norm(9.0).adapt(Adapt::Average { factor: 1.0, decay: 0.5 }),
            (1.2, 8.0),
            tolerance::average(4.0, 0.5),
        ),
        (
            Clip::global_norm(9.0).adapt(Adapt::Percentile { percentile: 60.0, window: 30 }),
            (1.0, 2.0),
            tolerance::percentile(60.0),
        ),
        (
            Clip::global_norm(9.0).adapt(Adapt::PastPercentile { percentile: 60.0, window: 30 }),
            (1.0, 2.0),
            tolerance::percentile(60.0),
        ),
        (Clip::global_norm(9.0).adapt(zscore), (1.4, 2.5), tolerance::deviation(0.1)),
        (Clip::adagc(2.0), (0.7, 0.85), tolerance::average(5.0, 0.02)),
        (
            Clip::global_norm(9.0).adapt(Adapt::Aggc(Aggc::new(0.5, 1.2, 0.9))),
            (1.4, 3.0),
            tolerance::average(4.0, 0.1),
        ),
    ] {
        let (least, most) = bounds;
        let clip = clip.at_least(least).at_most(most);
        check(gpu.as_deref(), &clip, relative);
        let mut history = History::default();
        let thresholds = on_cpu(&run(), &clip, &mut history).concat();
        for bound in [least, most] {
            let bound = bound as f32;
            assert!(thresholds.iter().filter(|t| **t == bound).count() > 3, "{bound}: {clip:?}");
        }
        let within = thresholds.iter().filter(|&&t| (least as f32) < t && t < most as f32).count();
        assert!(within > 3, "{within} within: {clip:?}");
    }
}

/// The second tensor in a group of its own.
fn grouped(step: &[Vec<f32>]) -> Vec<Tensor> {
    let mut tensors = named(step);
    tensors[1].group = Some(Named::new("middle", f64::INFINITY));
    tensors
}

/// In the order of their first tensors.
fn norms_of_groups(all: &[Vec<f32>]) -> [f64; 2] {
    [norm(&[all[0].clone(), all[2].clone()]), norm(&all[1..2])]
}

/// AGGC keeps groups within their intervals, and raises what is below: norms after the clip are what the program says.
#[test]
fn intervals_of_groups() {
    let gpu = gpu();
    let run = run();
    for aggc in [
        Aggc::new(0.8, 1.2, 0.9),
        Aggc::new(0.8, 1.2, 0.9).from_zero(true),
        Aggc::new(0.0, 1.5, 0.97).min_norm(0.9),
        Aggc::new(0.9, 1.1, 0.8).scales(0.5, 1.25).min_norm(0.1),
    ] {
        let clip = Clip::per_group_norm(f32::INFINITY).adapt(Adapt::Aggc(aggc));
        let mut history = History::default();
        let mut programs = [(); 2].map(|()| interval(aggc, f64::INFINITY, Box::new(|t, _| t)));
        let (mut raised, mut reduced, mut left) = (0, 0, Vec::new());
        for (step, gradients) in run.iter().enumerate() {
            let mut tensors = grouped(gradients);
            let report = cpu::clip_with(&mut common::grads(&mut tensors), &clip, &mut history).unwrap();
            let after: Vec<Vec<f32>> = tensors.iter().map(|t| t.data.floats()).collect();
            let norms = norms_of_groups(gradients).into_iter().zip(norms_of_groups(&after));
            for (segment, (program, (before, left))) in programs.iter_mut().zip(norms).enumerate() {
                if before.is_nan() {
                    continue;
                }
                let (lower, upper) = program(before);
                let want = if before > upper { upper } else { before.max(lower) };
                let what = format!("step {step}, segment {segment}: {aggc:?}");
                let relative = tolerance::average(4.0, 1.0 - f64::from(aggc.decay)) + tolerance::NORM_AFTER;
                assert_close([left], [want], relative, 0.0, &what);
                raised += u32::from(before < lower);
                reduced += u32::from(before > upper);
                let coefficient = report.segments[segment].coefficient;
                assert_eq!(coefficient > 1.0, before < lower, "{what}: {coefficient}");
                assert_eq!(report.segments[segment].clipped, before > upper, "{what}");
            }
            left.push(after);
        }
        assert!(reduced > 20 && raised > 20, "{raised} raised, {reduced} reduced: {aggc:?}");
        let Some(gpu) = &gpu else { continue };
        let grads = gpu.place(&grouped(&run[0]), Placing::APART).grads;
        let pass = gpu.clipper.prepare(&grads, &clip).unwrap();
        for (step, (gradients, left)) in run.iter().zip(&left).enumerate() {
            gpu.write(&grads, gradients);
            gpu.submit(|encoder| pass.record(encoder));
            if step % 25 == 0 {
                let there = common::contents(gpu, &grads, gradients);
                assert_eq!(common::bits(&there), common::bits(left), "step {step} on {}: {aggc:?}", gpu.name);
            }
        }
        assert_eq!(gpu.save(&pass), history, "{aggc:?} on {}", gpu.name);
    }
}

/// AdaGC of groups, as of tensors.
#[test]
fn adagc_per_group() {
    let gpu = gpu();
    let run = run();
    let clip = Clip::adagc(2.0).scope(gradclip::Scope::Group);
    let (mut history, mut clipped) = (History::default(), 0);
    let mut programs = [(); 2].map(|()| program(&clip));
    for (step, gradients) in run.iter().enumerate() {
        let mut tensors = grouped(gradients);
        let report = cpu::clip_with(&mut common::grads(&mut tensors), &clip, &mut history).unwrap();
        let groups = norms_of_groups(gradients);
        for (segment, program) in programs.iter_mut().enumerate() {
            if groups[segment].is_nan() {
                continue;
            }
            let want = program(&[groups[segment], norm(gradients)]);
            let ours = report.segments[segment].threshold;
            assert_close(
                [ours],
                [want],
                tolerance::average(5.0, 0.02),
                0.0,
                &format!("step {step}, {segment}"),
            );
            clipped += usize::from(groups[segment] > want);
        }
    }
    assert!(clipped > 50);
    let Some(gpu) = gpu else { return };
    let grads = gpu.place(&grouped(&run[0]), Placing::APART).grads;
    let pass = gpu.clipper.prepare(&grads, &clip).unwrap();
    on_gpu(&gpu, &run, &grads, &pass);
    assert_eq!(gpu.save(&pass), history, "on {}", gpu.name);
}

/// AdaGC, tensor by tensor: during the warm-up a limit of 2 on the whole set.
#[test]
fn adagc_per_tensor() {
    check(gpu().as_deref(), &Clip::adagc(2.0), tolerance::average(5.0, 0.02));
}

/// Andrew et al. over the examples of a batch: C moves until half of them are clipped.
#[test]
fn quantile_of_examples() {
    let gpu = gpu();
    let (rows, width) = (64usize, 6usize);
    let mut random = Random(3);
    let batches: Vec<Vec<Vec<f32>>> = (0..STEPS)
        .map(|_| vec![(0..rows * width).map(|e| random.unit() * (1.0 + (e / width) as f32)).collect()])
        .collect();
    let clip = Clip::per_row_norm(0.1f32).adapt(Adapt::Quantile { quantile: 0.5, rate: 0.2 });
    let tensor = |batch: &Vec<Vec<f32>>| [Tensor::new("t0", &batch[0]).shape(&[rows as u64, width as u64])];
    let (mut history, mut program, mut share) = (History::default(), program(&clip), 0.0);
    for batch in &batches {
        let mut own = tensor(batch);
        let report = cpu::clip_with(&mut common::grads(&mut own), &clip, &mut history).unwrap();
        let norms: Vec<f64> = batch[0].chunks(width).map(|row| norm(&[row.to_vec()])).collect();
        let c = program(&norms);
        assert_close([history.thresholds()[0]], [c], tolerance::products(STEPS), 0.0, "threshold");
        let over = norms.iter().filter(|&&norm| norm > c).count();
        assert_eq!(report.clipped_segments as usize, over);
        share = (rows - over) as f64 / rows as f64;
    }
    assert!((share - 0.5).abs() < 0.2, "{share}");
    let Some(gpu) = gpu else { return };
    let grads = gpu.place(&tensor(&batches[0]), Placing::APART).grads;
    let pass = gpu.clipper.prepare(&grads, &clip).unwrap();
    on_gpu(&gpu, &batches, &grads, &pass);
    assert_eq!(gpu.save(&pass), history, "on {}", gpu.name);
}

/// Large and small exponents of the quantile rule, and norms at both ends of f32.
#[test]
fn extremes_are_the_same_everywhere() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random(12);
    let run: Vec<Vec<Vec<f32>>> =
        (0..120).map(|_| vec![vec![f32::from_bits(random.bits() as u32 & 0x7f7f_ffff); 7]]).collect();
    for adapt in [
        Adapt::Mean { factor: 3e38, window: 5 },
        Adapt::Mean { factor: 1e-30, window: 50 },
        Adapt::Average { factor: 2.0, decay: 0.5 },
        Adapt::Percentile { percentile: 62.5, window: 33 },
        Adapt::ZScore { decay: 0.9, z: 1e-3, warm_up: 3, reaction: Reaction::Reciprocal },
        Adapt::Quantile { quantile: 0.9, rate: 16.0 },
        Adapt::Quantile { quantile: 0.1, rate: 1e-20 },
    ] {
        let clip = Clip::global_norm(1.0).adapt(adapt);
        let mut history = History::default();
        let thresholds = on_cpu(&run, &clip, &mut history);
        assert!(thresholds.iter().flatten().all(|t| !t.is_nan()), "{adapt:?}");
        let grads = gpu.separate(&run[0]);
        let pass = gpu.clipper.prepare(&grads, &clip).unwrap();
        on_gpu(&gpu, &run, &grads, &pass);
        assert_eq!(gpu.save(&pass), history, "{adapt:?} on {}", gpu.name);
    }
}

/// Saved after 200 steps, restored into another pass, on other buffers and on the CPU: all end with
/// the same history as a run without a break.
#[test]
fn a_history_goes_on_where_it_was() {
    let Some(gpu) = gpu() else { return };
    let run = run();
    for adapt in [Adapt::zclip(), Adapt::autoclip(20.0), Adapt::Mean { factor: 1.1, window: 30 }] {
        let clip = Clip::global_norm(10.0).adapt(adapt);
        let mut whole = History::default();
        on_cpu(&run, &clip, &mut whole);

        let grads = gpu.separate(&run[0]);
        let pass = gpu.clipper.prepare(&grads, &clip).unwrap();
        on_gpu(&gpu, &run[..200], &grads, &pass);
        let saved = History::from_bytes(&gpu.save(&pass).to_bytes()).unwrap();
        assert_eq!(saved.steps(), 200);
        // Another arena, as after a restart.
        let others = gpu.separate(&run[0]);
        let restarted = gpu.clipper.prepare(&others, &clip).unwrap();
        restarted.restore_history(&gpu.queue, &saved).unwrap();
        on_gpu(&gpu, &run[200..], &others, &restarted);
        assert_eq!(gpu.save(&restarted), whole);
        // Other buffers while the run goes on; nothing is copied.
        let moved = gpu.separate(&run[0]);
        let next = gpu.clipper.prepare_after(&pass, &moved, &clip).unwrap();
        drop(pass);
        on_gpu(&gpu, &run[200..], &moved, &next);
        assert_eq!(gpu.save(&next), whole);
        // And on the CPU.
        let mut on_host = saved.clone();
        on_cpu(&run[200..], &clip, &mut on_host);
        assert_eq!(on_host, whole);

        // Histories of something else are refused.
        let other = Clip::global_norm(10.0).adapt(Adapt::adagc()).scope(gradclip::Scope::Tensor);
        let fixed = gpu.clipper.prepare(&moved, &Clip::global_norm(1.0)).unwrap();
        assert!(matches!(fixed.restore_history(&gpu.queue, &saved), Err(ClipError::State { .. })));
        assert!(gpu.clipper.prepare_after(&next, &moved, &other).is_err());
        let per_tensor = clip.scope(gradclip::Scope::Tensor);
        assert!(gpu.clipper.prepare_after(&next, &moved, &per_tensor).is_err());
    }
}

#[test]
fn broken_bytes_are_no_history() {
    let mut history = History::default();
    on_cpu(&run()[..9], &Clip::global_norm(1.0).adapt(Adapt::autoclip(10.0)), &mut history);
    let bytes = history.to_bytes();
    assert_eq!(History::from_bytes(&bytes).unwrap(), history);
    for broken in [
        &bytes[..0],
        &bytes[..7],
        &bytes[1..],
        &bytes[..20],
        &bytes[..bytes.len() - 1],
        &bytes[..bytes.len() - 4],
    ] {
        assert!(matches!(History::from_bytes(broken), Err(ClipError::State { .. })));
    }
    assert!(History::from_bytes(&[&bytes[..], &[0; 4]].concat()).is_err());
    let mut huge = bytes.clone();
    huge[88..92].fill(0xff); // the number of limits
    assert!(History::from_bytes(&huge).is_err());
}

/// A scheduler on the host sets the threshold of any step, while counts go on.
#[test]
fn a_scheduler_on_the_host() {
    let Some(gpu) = gpu() else { return };
    let grads = gpu.separate(&[vec![3.0, 4.0], vec![0.0]]);
    let pass = gpu.clipper.prepare(&grads, &Clip::global_norm(1.0)).unwrap();
    let mut clipped = 0;
    for step in 1..=20u32 {
        let threshold = 10.0 - step as f32 / 2.0;
        pass.set_threshold(&gpu.queue, threshold).unwrap();
        gpu.write(&grads, &[[3.0f32, 4.0]]);
        let report = gpu.run(&pass);
        clipped += u64::from(threshold < 5.0);
        assert_eq!((report.step, report.clipped_steps), (step.into(), clipped));
        assert_eq!(report.segments[0].threshold, f64::from(threshold));
    }
}

#[test]
fn constants_out_of_range_are_refused() {
    let refused =
        |adapt: Adapt| matches!(Clip::global_norm(1.0).adapt(adapt).validate(), Err(ClipError::Adapt { .. }));
    for adapt in [
        Adapt::Mean { factor: -1.0, window: 1 },
        Adapt::Mean { factor: f32::NAN, window: 1 },
        Adapt::Mean { factor: 1.0, window: 0 },
        Adapt::Mean { factor: 1.0, window: Adapt::LARGEST_WINDOW + 1 },
        Adapt::Average { factor: 1.0, decay: 1.0 },
        Adapt::Average { factor: f32::INFINITY, decay: 0.9 },
        Adapt::Percentile { percentile: 101.0, window: 5 },
        Adapt::Percentile { percentile: f32::NAN, window: 5 },
        Adapt::ZScore { decay: 0.9, z: 0.0, warm_up: 5, reaction: Reaction::Mean },
        Adapt::ZScore { decay: 0.9, z: 1.0, warm_up: 0, reaction: Reaction::Mean },
        Adapt::Quantile { quantile: 1.5, rate: 0.2 },
        Adapt::Quantile { quantile: 0.5, rate: -0.2 },
    ] {
        assert!(refused(adapt), "{adapt:?}");
    }
    let combination = |clip: Clip| matches!(clip.validate(), Err(ClipError::Combination { .. }));
    assert!(combination(Clip::per_row_norm(1.0).adapt(Adapt::zclip())));
    assert!(combination(Clip::global_norm(1.0).adapt(Adapt::adagc())));
    assert!(combination(Clip::value(1.0).adapt(Adapt::zclip())));
    assert!(combination(Clip::measure().adapt(Adapt::Quantile { quantile: 0.5, rate: 0.2 })));
}

/// An excluded group keeps every bit whatever threshold the others find, and has no history.
#[test]
fn excluded_groups_do_not_adapt() {
    let gpu = gpu();
    let free = Named::excluded("free");
    for adapt in [
        Adapt::Mean { factor: 0.5, window: 3 },
        Adapt::Average { factor: 0.5, decay: 0.5 },
        Adapt::Percentile { percentile: 0.0, window: 3 },
        Adapt::Quantile { quantile: 0.5, rate: 0.2 },
    ] {
        let clip = Clip::per_group_norm(0.5).adapt(adapt);
        // Norms that grow, so that every rule clips.
        let run: Vec<Vec<Vec<f32>>> =
            (1..5).map(|step| vec![vec![3.0 * step as f32, 4.0], vec![30.0, 40.0]]).collect();
        let mut history = History::default();
        let mut clipped = 0;
        for before in &run {
            let mut own = [Tensor::new("own", &before[0]), Tensor::new("other", &before[1]).group(free)];
            let report = cpu::clip_with(&mut common::grads(&mut own), &clip, &mut history).unwrap();
            clipped += report.clipped_segments;
            assert!(!report.segments[1].clipped && report.segments[1].threshold == f64::INFINITY);
            assert_eq!(own[1].data.floats(), before[1], "{adapt:?}");
        }
        assert!(clipped > 0, "{adapt:?}");
        let Some(gpu) = &gpu else { continue };
        let [own, other] = gpu.separate(&run[0]).try_into().unwrap();
        let grads = [own, other.group(&free.group())];
        let pass = gpu.clipper.prepare(&grads, &clip).unwrap();
        on_gpu(gpu, &run, &grads, &pass);
        assert_eq!(gpu.read::<f32>(grads[1].buffer()), run[0][1], "{adapt:?} on {}", gpu.name);
        assert_eq!(gpu.save(&pass), history, "{adapt:?} on {}", gpu.name);
    }
}
