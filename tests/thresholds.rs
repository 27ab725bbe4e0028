//! Adaptive thresholds over 500 steps of a run with drift, noise, spikes and one NaN: each rule
//! against a plain f64 program, the GPU against the CPU in every bit, and histories that go on where
//! they were saved.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Gpu, Random, gpu};
use gradclip::cpu::{self, GradMut};
use gradclip::layout::Outcome;
use gradclip::{Adapt, Clip, ClipError, Grad, Group, History, Pass, Reaction};

const STEPS: usize = 500;
const NAN_STEP: usize = 250;
const SIZES: [usize; 3] = [5, 300, 40];

/// Gradients of each step: a norm that drifts down, noise of a fifth, a spike now and then.
fn run() -> Vec<Vec<Vec<f32>>> {
    let mut random = Random(77);
    (0..STEPS)
        .map(|step| {
            let drift = 3.0 / (1.0 + step as f32 / 100.0);
            let spike = match random.bits() % 25 {
                0 if step > 3 => 10f32.powi(1 + (random.bits() % 5) as i32),
                _ => 1.0,
            };
            let mut tensors: Vec<Vec<f32>> = SIZES
                .iter()
                .map(|&n| {
                    let size = drift * spike * (1.0 + 0.3 * random.unit());
                    (0..n).map(|_| random.unit() * size / (n as f32 / 3.0).sqrt()).collect()
                })
                .collect();
            if step == NAN_STEP {
                tensors[1][17] = f32::NAN;
            }
            tensors
        })
        .collect()
}

fn norm(tensors: &[Vec<f32>]) -> f64 {
    tensors.iter().flatten().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt()
}

/// The thresholds of every step, limit by limit, on the CPU.
fn on_cpu(run: &[Vec<Vec<f32>>], clip: &Clip, history: &mut History) -> Vec<Vec<f32>> {
    run.iter()
        .map(|tensors| {
            let mut tensors = tensors.clone();
            let mut grads: Vec<_> = tensors.iter_mut().map(|t| GradMut::new("t", t)).collect();
            let report = cpu::clip_with(&mut grads, clip, history).unwrap();
            report.segments.iter().map(|s| s.threshold as f32).collect()
        })
        .collect()
}

/// The outcomes of every step, without a read-back until the end.
fn on_gpu(gpu: &Gpu, run: &[Vec<Vec<f32>>], grads: &[Grad], pass: &Pass) -> Vec<Vec<Outcome>> {
    let bytes = pass.outcome_bytes();
    let log = gpu.buffer(&vec![0; bytes as usize * run.len()]);
    for (step, tensors) in run.iter().enumerate() {
        for (grad, t) in grads.iter().zip(tensors) {
            gpu.queue.write_buffer(grad.buffer(), 0, bytemuck::cast_slice(t));
        }
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        pass.record(&mut encoder);
        encoder.copy_buffer_to_buffer(pass.outcomes(), 0, &log, bytes * step as u64, bytes);
        gpu.queue.submit([encoder.finish()]);
    }
    let all: Vec<Outcome> = gpu.read(&log);
    all.chunks(all.len() / run.len()).map(<[Outcome]>::to_vec).collect()
}

fn save(gpu: &Gpu, pass: &Pass) -> History {
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    let saved = pass.save_history(&mut encoder).unwrap();
    gpu.queue.submit([encoder.finish()]);
    saved.wait().unwrap()
}

/// The rule of one limit in f64: given the norm of a step, its threshold.
type Program = Box<dyn FnMut(f64) -> f64>;

fn mean_of(norms: &[f64]) -> f64 {
    norms.iter().sum::<f64>() / norms.len() as f64
}

fn mean(factor: f64, window: usize, first: f64) -> Program {
    let mut norms: Vec<f64> = Vec::new();
    Box::new(move |norm| {
        let recent = &norms[norms.len().saturating_sub(window)..];
        let threshold = if recent.is_empty() { first } else { factor * mean_of(recent) };
        norms.push(norm);
        threshold
    })
}

fn average(factor: f64, decay: f64, first: f64) -> Program {
    let mut average = None;
    Box::new(move |norm| {
        let threshold = average.map_or(first, |a: f64| factor * a);
        average = Some(average.map_or(norm, |a| decay * a + (1.0 - decay) * norm));
        threshold
    })
}

/// numpy.percentile(norms, percent), method `linear`.
fn percentile(percent: f64, window: usize) -> Program {
    let mut norms: Vec<f64> = Vec::new();
    Box::new(move |norm| {
        norms.push(norm);
        let mut recent = norms[norms.len().saturating_sub(window)..].to_vec();
        recent.sort_by(f64::total_cmp);
        let rank = percent / 100.0 * (recent.len() - 1) as f64;
        let (below, above) = (recent[rank.floor() as usize], recent[rank.ceil() as usize]);
        below + (above - below) * rank.fract()
    })
}

/// ZClip. Where nothing is reduced any threshold at or above the norm will do; NaN stands for it.
fn zscore(alpha: f64, z: f64, warm_up: usize, reaction: Reaction, first: f64) -> Program {
    let mut norms: Vec<f64> = Vec::new();
    let (mut mean, mut variance) = (0.0, 0.0);
    Box::new(move |norm| {
        if norms.len() < warm_up {
            norms.push(norm);
            mean = mean_of(&norms);
            variance = norms.iter().map(|n| (n - mean).powi(2)).sum::<f64>() / norms.len() as f64;
            return first;
        }
        let deviation = variance.sqrt();
        let score = (norm - mean) / (deviation + 1e-6);
        let threshold = match reaction {
            _ if score <= z => f64::NAN,
            Reaction::Mean => mean,
            Reaction::Max => mean + z * deviation,
            _ => mean + z * deviation / (score / z),
        };
        let clipped = if threshold.is_nan() { norm } else { threshold };
        mean = alpha * mean + (1.0 - alpha) * clipped;
        variance = alpha * variance + (1.0 - alpha) * (clipped - mean).powi(2);
        threshold
    })
}

/// Against the program, step by step; the step with the NaN is not shown to it.
fn assert_follows(thresholds: &[Vec<f32>], norms: &[f64], mut program: Program, relative: f64) -> usize {
    let mut clipped = 0;
    for (step, (ours, &norm)) in thresholds.iter().zip(norms).enumerate() {
        if step == NAN_STEP {
            continue;
        }
        let (ours, want) = (f64::from(ours[0]), program(norm));
        if want.is_nan() {
            assert!(ours >= norm * (1.0 - 1e-6), "step {step}: {ours} clips a norm of {norm}");
        } else {
            assert!(
                ours == want || (ours - want).abs() <= relative * want,
                "step {step}: threshold {ours}, not {want}; norm {norm}"
            );
            clipped += usize::from(norm > want);
        }
    }
    clipped
}

/// One rule on the CPU against the program, and on the GPU against the CPU.
fn check(gpu: Option<&Gpu>, clip: &Clip, program: Program, relative: f64) {
    let run = run();
    let norms: Vec<f64> = run.iter().map(|t| norm(t)).collect();
    let mut history = History::default();
    let thresholds = on_cpu(&run, clip, &mut history);
    let clipped = assert_follows(&thresholds, &norms, program, relative);
    assert!(clipped > 5, "{clipped} steps clipped tell little");
    assert_eq!(history.steps(), STEPS as u64);
    let Some(gpu) = gpu else { return };
    let grads = gpu.separate(&run[0]);
    let pass = gpu.clipper.prepare(&grads, clip).unwrap();
    let outcomes = on_gpu(gpu, &run, &grads, &pass);
    for (step, (ours, theirs)) in outcomes.iter().zip(&thresholds).enumerate() {
        let ours: Vec<u32> = ours.iter().map(|o| o.threshold.to_bits()).collect();
        let theirs: Vec<u32> = theirs.iter().map(|t| t.to_bits()).collect();
        assert_eq!(ours, theirs, "step {step} on {}: {clip:?}", gpu.name);
    }
    assert_eq!(save(gpu, &pass), history, "{clip:?} on {}", gpu.name);
}

const U: f64 = 1.0 / 16_777_216.0;

#[test]
fn mean_over_a_window() {
    let gpu = gpu();
    for window in [1, 50, 10_000] {
        let clip = Clip::global_norm(0.5).adapt(Adapt::Mean { factor: 1.25, window });
        // The norms', the sum's, the quotient's and the product's rounding, and factor is exact.
        check(gpu.as_deref(), &clip, mean(1.25, window as usize, 0.5), 5.0 * U);
    }
}

#[test]
fn exponential_average() {
    let gpu = gpu();
    let clip = Clip::global_norm(f32::INFINITY).adapt(Adapt::Average { factor: 1.5, decay: 0.97 });
    // Each step adds four roundings, and forgets 0.03 of those before.
    check(gpu.as_deref(), &clip, average(1.5, f64::from(0.97f32), f64::INFINITY), 4.0 / 0.03 * U);
}

#[test]
fn autoclip() {
    let gpu = gpu();
    for (percent, window) in [(10.0, 10_000), (90.0, 64), (0.0, 10), (33.3, 77)] {
        let clip = Clip::global_norm(1.0).adapt(Adapt::Percentile { percentile: percent, window });
        // The rank is good to U of itself, 500 at most, of a gap that a spike makes 1e5 wide for the
        // last ranks only; these percentiles end below them, or on a rank.
        check_percentile(gpu.as_deref(), &clip, f64::from(percent), window as usize);
    }
}

fn check_percentile(gpu: Option<&Gpu>, clip: &Clip, percent: f64, window: usize) {
    check(gpu, clip, percentile(percent, window), if percent == 90.0 { 1e-3 } else { 1e-4 });
}

#[test]
fn zclip_and_its_reactions() {
    let gpu = gpu();
    for reaction in [Reaction::Mean, Reaction::Max, Reaction::Reciprocal] {
        let adapt = Adapt::ZScore { decay: 0.97, z: 2.5, warm_up: 25, reaction };
        let clip = Clip::global_norm(4.0).adapt(adapt);
        // The mean is good to 4 U / 0.03; distances from it, a tenth as large, to ten times that, and
        // the variance to twice that again.
        let program = zscore(f64::from(0.97f32), 2.5, 25, reaction, 4.0);
        check(gpu.as_deref(), &clip, program, 4.0 / 0.03 * 20.0 * U);
    }
}

/// AdaGC in f64, tensor by tensor: during the warm-up a limit of 2 on the whole set.
#[test]
fn adagc_per_tensor() {
    let gpu = gpu();
    let run = run();
    let clip = Clip::adagc(2.0);
    let mut history = History::default();
    let thresholds = on_cpu(&run, &clip, &mut history);
    let (factor, decay) = (f64::from(1.05f32), f64::from(0.98f32));
    let mut gamma = [f64::INFINITY; 3];
    let mut clipped = 0;
    for (step, (tensors, ours)) in run.iter().zip(&thresholds).enumerate() {
        let whole = (2.0 / norm(tensors)).min(1.0);
        for (i, t) in tensors.iter().enumerate() {
            let norm = norm(std::slice::from_ref(t));
            if norm.is_nan() {
                continue;
            }
            if step < 100 {
                assert_eq!(ours[i], f32::INFINITY);
                gamma[i] = gamma[i].min(norm * whole);
                continue;
            }
            let want = factor * gamma[i];
            // As for the exponential average, which forgets 0.02 a step here.
            assert!(
                (f64::from(ours[i]) - want).abs() <= 5.0 / 0.02 * U * want,
                "step {step}: {ours:?} {want}"
            );
            clipped += usize::from(norm > want);
            gamma[i] = decay * gamma[i] + (1.0 - decay) * norm.min(want);
        }
    }
    assert!(clipped > 50);
    let Some(gpu) = gpu else { return };
    let grads = gpu.separate(&run[0]);
    let pass = gpu.clipper.prepare(&grads, &clip).unwrap();
    let outcomes = on_gpu(&gpu, &run, &grads, &pass);
    for (step, (ours, theirs)) in outcomes.iter().zip(&thresholds).enumerate() {
        let ours: Vec<f32> = ours[..3].iter().map(|o| o.threshold).collect();
        assert_eq!(&ours, theirs, "step {step} on {}", gpu.name);
    }
    assert_eq!(save(&gpu, &pass), history);
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
    let clip = Clip::per_row_norm(0.1).adapt(Adapt::Quantile { quantile: 0.5, rate: 0.2 });
    let mut history = History::default();
    let (mut c, mut share) = (f64::from(0.1f32), 0.0);
    for batch in &batches {
        let mut values = batch[0].clone();
        let mut grads = [GradMut::new("g", &mut values).shape(&[rows as u64, width as u64])];
        let report = cpu::clip_with(&mut grads, &clip, &mut history).unwrap();
        // Four roundings a step, none forgotten.
        let ours = f64::from(history.thresholds()[0]);
        assert!((ours - c).abs() <= c * 4.0 * U * STEPS as f64, "{ours} {c}");
        let over = batch[0].chunks(width).filter(|row| norm(&[row.to_vec()]) > c).count();
        assert_eq!(report.clipped_segments as usize, over);
        share = (rows - over) as f64 / rows as f64;
        c *= (-f64::from(0.2f32) * (share - 0.5)).exp();
    }
    assert!((share - 0.5).abs() < 0.2, "{share}");
    let Some(gpu) = gpu else { return };
    let grads: Vec<Grad> =
        gpu.separate(&batches[0]).into_iter().map(|g| g.shape(&[rows as u64, width as u64])).collect();
    let pass = gpu.clipper.prepare(&grads, &clip).unwrap();
    on_gpu(&gpu, &batches, &grads, &pass);
    assert_eq!(save(&gpu, &pass), history, "on {}", gpu.name);
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
        assert_eq!(save(&gpu, &pass), history, "{adapt:?} on {}", gpu.name);
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
        let saved = History::from_bytes(&save(&gpu, &pass).to_bytes()).unwrap();
        assert_eq!(saved.steps(), 200);
        // Another arena, as after a restart.
        let others = gpu.separate(&run[0]);
        let restarted = gpu.clipper.prepare(&others, &clip).unwrap();
        restarted.restore_history(&gpu.queue, &saved).unwrap();
        on_gpu(&gpu, &run[200..], &others, &restarted);
        assert_eq!(save(&gpu, &restarted), whole);
        // Other buffers while the run goes on; nothing is copied.
        let moved = gpu.separate(&run[0]);
        let next = gpu.clipper.prepare_after(&pass, &moved, &clip).unwrap();
        drop(pass);
        on_gpu(&gpu, &run[200..], &moved, &next);
        assert_eq!(save(&gpu, &next), whole);
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
    huge[32..36].fill(0xff);
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
        gpu.queue.write_buffer(grads[0].buffer(), 0, bytemuck::cast_slice(&[3.0f32, 4.0]));
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
    let free = Group::excluded("free");
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
            let [mut own, mut other] = [before[0].clone(), before[1].clone()];
            let mut grads = [GradMut::new("own", &mut own), GradMut::new("other", &mut other).group(&free)];
            let report = cpu::clip_with(&mut grads, &clip, &mut history).unwrap();
            clipped += report.clipped_segments;
            assert!(!report.segments[1].clipped && report.segments[1].threshold == f64::INFINITY);
            assert_eq!(other, before[1], "{adapt:?}");
        }
        assert!(clipped > 0, "{adapt:?}");
        let Some(gpu) = &gpu else { continue };
        let [own, other] = gpu.separate(&run[0]).try_into().unwrap();
        let grads = [own, other.group(&free)];
        let pass = gpu.clipper.prepare(&grads, &clip).unwrap();
        on_gpu(gpu, &run, &grads, &pass);
        assert_eq!(gpu.read::<f32>(grads[1].buffer()), run[0][1], "{adapt:?} on {}", gpu.name);
        assert_eq!(save(gpu, &pass), history, "{adapt:?} on {}", gpu.name);
    }
}
