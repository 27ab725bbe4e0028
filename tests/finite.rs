//! What is finite stays finite: in place, in a step, in an accumulator. What unscaling takes above the
//! largest `f32` is non-finite for the policy, also at the last bit, with the same bits on CPU and GPU.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Gpu, Random, gpu};
use gradclip::cpu::{self, GradMut, Moments, StepMut, SumMut};
use gradclip::layout::Partial;
use gradclip::{
    Adam, Clip, DType, Grad, History, LossScale, NonFinite, NormType, Optimizer, Report, Scope, Sgd, Units,
};
use half::{bf16, f16};

/// Clips bytes of a type in place on the CPU path, and on the GPU where there is one; both must agree.
fn clipped(gpu: &Option<common::Held>, bytes: &[u8], dtype: DType, clip: &Clip) -> (Report, Vec<u8>) {
    let clip = &clip.lossy_unscale(true);
    let n = bytes.len() as u64 / dtype.size();
    let shape = [n / 2, 2];
    let cut = matches!(clip.scope, Scope::Unit(_) | Scope::Row);
    let shaped = |g: Grad| if cut { g.shape(&shape) } else { g };
    let (report, after, partials) = match dtype {
        DType::F16 => on_cpu::<f16>(bytes, clip, |n, e| GradMut::f16(n, e), cut.then_some(shape)),
        DType::Bf16 => on_cpu::<bf16>(bytes, clip, |n, e| GradMut::bf16(n, e), cut.then_some(shape)),
        _ => on_cpu::<f32>(bytes, clip, |n, e| GradMut::new(n, e), cut.then_some(shape)),
    };
    if let Some(gpu) = gpu {
        let buffer = gpu.buffer(bytes);
        let grad = shaped(Grad::range("g", &buffer, 0, n).dtype(dtype));
        let pass = gpu.clipper.prepare(&[grad], clip).unwrap();
        assert_eq!(gpu.run(&pass), report, "{clip:?} on {}", gpu.name);
        assert_eq!(gpu.read::<Partial>(pass.partials())[..partials.len()], partials, "{clip:?}");
        assert!(gpu.read::<u8>(&buffer)[..bytes.len()] == after, "{dtype}, {clip:?} on {}", gpu.name);
    }
    (report, after)
}

fn on_cpu<T: bytemuck::Pod>(
    bytes: &[u8],
    clip: &Clip,
    grad: impl for<'a> Fn(&'static str, &'a mut [T]) -> GradMut<'a>,
    shape: Option<[u64; 2]>,
) -> (Report, Vec<u8>, Vec<Partial>) {
    let mut elements: Vec<T> = bytemuck::pod_collect_to_vec(bytes);
    let trace = {
        let grad = grad("g", &mut elements);
        let grad = if let Some(shape) = shape { grad.shape(&shape) } else { grad };
        cpu::clip_traced(&mut [grad], clip).unwrap()
    };
    (trace.report, bytemuck::cast_slice(&elements).to_vec(), trace.partials)
}

fn f32s(bytes: &[u8]) -> Vec<f32> {
    bytemuck::pod_collect_to_vec(bytes)
}

fn bytes(values: &[f32]) -> Vec<u8> {
    bytemuck::cast_slice(values).to_vec()
}

/// TRIED T4, and its like: results of 16 bits.
#[test]
fn results_of_short_types_are_at_most_their_largest() {
    let gpu = gpu();
    let h = |v: &[f32]| -> Vec<u8> { v.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect() };
    let read = |b: &[u8]| -> Vec<f32> {
        bytemuck::pod_collect_to_vec::<u8, f16>(b).iter().map(|x| x.to_f32()).collect()
    };
    let (_, after) = clipped(&gpu, &h(&[100.0, 1.0]), DType::F16, &Clip::global_norm(1e6).unscale(1000.0));
    assert_eq!(read(&after), [65_504.0, 1000.0]);
    let (_, after) = clipped(&gpu, &h(&[6e4, -6e4, 0.0, 1.0]), DType::F16, &Clip::sign(1e4).threshold(7e4));
    assert_eq!(read(&after), [65_504.0, -65_504.0, 0.0, 65_504.0]);
    let infinite = h(&[f32::INFINITY, f32::NEG_INFINITY, 5.0, -70.0]);
    let (_, after) = clipped(&gpu, &infinite, DType::F16, &Clip::value(1e5));
    assert_eq!(read(&after), [65_504.0, -65_504.0, 5.0, -70.0]);
    let (_, after) = clipped(&gpu, &h(&[3.0, 4.0]), DType::F16, &Clip::normalize(1e6));
    assert_eq!(read(&after), [65_504.0, 65_504.0]);
    // Finite in f32, above the largest bf16 when rounded to it.
    let b: Vec<u8> = [3e38f32, 1.0].iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect();
    let (_, after) = clipped(&gpu, &b, DType::Bf16, &Clip::measure().unscale(1.132));
    assert_eq!(bytemuck::pod_collect_to_vec::<u8, bf16>(&after)[0], bf16::MAX);
}

trait WithThreshold {
    fn threshold(self, threshold: f64) -> Self;
}

impl WithThreshold for Clip {
    fn threshold(mut self, threshold: f64) -> Clip {
        self.threshold = threshold;
        self
    }
}

/// The last magnitude whose product with the factor rounds to a finite `f32` counts, the next one does not;
/// hardware's own product says which that is.
#[test]
fn what_unscaling_makes_infinite_is_told_at_the_last_bit() {
    let gpu = gpu();
    let mut random = Random(5);
    let mut scales = vec![2.0f32, 1.0f32.next_up(), 3.0, 1000.0, 1e30];
    scales.extend((0..8).map(|_| 1.0 + random.unit().abs() * 2f32.powi((random.bits() % 60) as i32)));
    for unscale in scales {
        // By halving: the largest finite one.
        let (mut low, mut high) = (0u32, f32::INFINITY.to_bits());
        while high - low > 1 {
            let middle = (low + high) / 2;
            if (f32::from_bits(middle) * unscale).is_finite() { low = middle } else { high = middle }
        }
        let (last, next) = (f32::from_bits(low), f32::from_bits(high));
        for norm in [NormType::Two, NormType::One, NormType::Inf, NormType::P(3.0)] {
            let clip = Clip::global_norm(1.0).norm_type(norm).unscale(unscale);
            if matches!(norm, NormType::P(_)) {
                let mut g = [last, -next, 1e-3, next];
                let report = cpu::clip(&mut [GradMut::new("g", &mut g)], &clip).unwrap();
                assert_eq!(report.non_finite(), 2, "{unscale:e}");
                continue;
            }
            let (report, after) = clipped(&gpu, &bytes(&[last, -last]), DType::F32, &clip);
            assert_eq!((report.non_finite(), report.clipped()), (0, true), "{unscale:e} {norm:?}");
            assert!(f32s(&after).iter().all(|x| x.is_finite()), "{unscale:e} {norm:?}");
            let offending = bytes(&[1e-3, -next, last, next]);
            let (report, after) = clipped(&gpu, &offending, DType::F32, &clip);
            assert_eq!((report.non_finite(), report.segments[0].non_finite), (2, 2), "{unscale:e} {norm:?}");
            assert!(report.segments[0].skipped && after == offending);
            let sanitize = clip.on_non_finite(NonFinite::Sanitize);
            let (report, after) = clipped(&gpu, &offending, DType::F32, &sanitize);
            let after = f32s(&after);
            assert!(report.non_finite() == 2 && after[1] == 0.0 && after[3] == 0.0 && after[2] != 0.0);
            assert!(report.norm().unwrap() >= f64::from(last) * f64::from(unscale) * (1.0 - 1e-6));
        }
        // Units, short and long chunks, and both ways to reduce them.
        for scope in [Scope::Unit(Units::OutputFirst), Scope::Unit(Units::OutputLast), Scope::Row] {
            let mut many = vec![1e-20f32; 40_000];
            (many[7], many[39_998], many[20_000]) = (next, -next, last);
            let clip = Clip::global_norm(1.0).scope(scope).unscale(unscale).never_above(false);
            let (report, _) = clipped(&gpu, &bytes(&many), DType::F32, &clip);
            assert_eq!((report.non_finite(), report.first_non_finite()), (2, Some("g")), "{scope:?}");
        }
    }
}

/// A loss scale below 1 unscales upwards, with a factor that only the device knows.
#[test]
fn a_small_loss_scale_is_unscaled_exactly() {
    let gpu = gpu();
    let scale = LossScale::default().initial(0.5).growth(1.0);
    let clip = Clip::measure().loss_scale(scale).unscale(3.0);
    // Times 6: the same by halving, without the library.
    let (mut low, mut high) = (0u32, f32::INFINITY.to_bits());
    while high - low > 1 {
        let middle = (low + high) / 2;
        if (f32::from_bits(middle) * 6.0).is_finite() { low = middle } else { high = middle }
    }
    for (bits, offends) in [(low, 0), (high, 1)] {
        let mut g = [f32::from_bits(bits), 1.0];
        let grads = &mut [GradMut::new("g", &mut g)];
        let report = cpu::clip_with(grads, &clip, &mut History::default()).unwrap();
        assert_eq!(report.non_finite(), offends);
        let Some(gpu) = &gpu else { continue };
        let grads = gpu.separate(&[vec![f32::from_bits(bits), 1.0]]);
        let named = Grad::new("g", grads[0].buffer());
        assert_eq!(gpu.run(&gpu.clipper.prepare(&[named], &clip).unwrap()), report, "{}", gpu.name);
        assert_eq!(gpu.read::<f32>(grads[0].buffer()), g);
    }
}

/// Thresholds and factors beyond any `f32` saturate instead of overflowing.
#[test]
fn products_saturate() {
    let gpu = gpu();
    let big = [f32::MAX, -f32::MAX / 2.0, 1.0, 0.0];
    let (_, after) =
        clipped(&gpu, &bytes(&big), DType::F32, &Clip::normalize(f32::MAX).norm_type(NormType::One));
    assert!(f32s(&after).iter().all(|x| x.is_finite()));
    // Average norms allow norms above the largest f32.
    let mut random = Random(6);
    let any: Vec<f32> = (0..3000).map(|_| f32::from_bits(random.bits() as u32 & 0xff7f_ffff)).collect();
    for clip in [
        Clip::normalize(3e38),
        Clip::measure().unscale(1e30),
        Clip::global_norm(3.4e38).unscale(1e9),
        Clip::average_norm(3e38).unscale(2.0),
        Clip::sign(3.4e38).unscale(1e20),
        Clip::value(3.4e38).unscale(1e20),
        Clip::value(f32::INFINITY).unscale(1e20),
    ] {
        for policy in [NonFinite::Skip, NonFinite::Sanitize] {
            let (_, after) = clipped(&gpu, &bytes(&any), DType::F32, &clip.on_non_finite(policy));
            assert!(f32s(&after).iter().all(|x| x.is_finite()), "{clip:?}");
        }
    }
}

fn step_on(
    gpu: &Gpu,
    g: &[f32],
    p: &[f32],
    optimizer: Optimizer,
    clip: &Clip,
    steps: usize,
) -> Vec<Vec<f32>> {
    let buffers = [g, p].map(|v| gpu.buffer(bytemuck::cast_slice(v)));
    let grad = Grad::new("g", &buffers[0]).parameter(&buffers[1], 0, DType::F32);
    let stepper = gpu.clipper.prepare_step(&[grad], clip, optimizer).unwrap();
    for _ in 0..steps {
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        stepper.record_step(&mut encoder);
        gpu.queue.submit([encoder.finish()]);
    }
    let mut all = vec![gpu.read::<f32>(&buffers[1])];
    for moment in stepper.moments()[0].iter() {
        all.push(gpu.read::<f32>(&moment.buffer)[..g.len()].to_vec());
    }
    all
}

/// TRIED T4: g = 1e38 unscaled by 1000 moved a parameter to -inf, and counted. Finite ones saturate.
#[test]
fn steps_end_in_finite_parameters_and_state() {
    let gpu = gpu();
    let mut parameters = [1.0f32, 2.0];
    let (mut history, mut moments) = (History::default(), Moments::default());
    let g = [1e38f32, 1.0];
    let clip = Clip::measure().unscale(1000.0);
    let sgd = Optimizer::from(Sgd::new(1.0));
    let mut steps = [StepMut::new("w", &g[..], &mut parameters)];
    let report = cpu::step(&mut steps, &clip, &sgd, &mut history, &mut moments).unwrap();
    assert_eq!((report.non_finite(), history.updates(), parameters), (1, 0, [1.0, 2.0]));
    if let Some(gpu) = &gpu {
        assert_eq!(step_on(gpu, &g, &[1.0, 2.0], sgd, &clip, 1)[0], [1.0, 2.0]);
    }
    let g = [3e38f32, -3e38, 1e25, 1e-30, 0.0, f32::MAX];
    let p = [-3e38f32, 3e38, 1.0, -1.0, 0.0, f32::MIN];
    for optimizer in [
        Optimizer::from(Sgd::new(10.0)),
        Sgd::new(1e30).momentum(0.9).into(),
        Sgd::new(5.0).momentum(0.99).nesterov(true).weight_decay(1e5).into(),
        Adam::new(1e30).into(),
        Adam::new(0.1).betas(0.999, 0.5).weight_decay(1e10).into(),
        Adam::adamw(1e20).weight_decay(1e20).into(),
    ] {
        let mut parameters = p;
        let (mut history, mut moments) = (History::default(), Moments::default());
        for _ in 0..5 {
            let mut steps = [StepMut::new("w", &g[..], &mut parameters)];
            cpu::step(&mut steps, &Clip::measure(), &optimizer, &mut history, &mut moments).unwrap();
        }
        let state = || moments.tensors.iter().flatten().flatten();
        assert!(
            parameters.iter().chain(state()).all(|x| x.is_finite()),
            "{optimizer:?}: {parameters:?} {moments:?}"
        );
        let Some(gpu) = &gpu else { continue };
        let all = step_on(gpu, &g, &p, optimizer, &Clip::measure(), 5);
        assert!(all.iter().flatten().all(|x| x.is_finite()), "{optimizer:?} on {}: {all:?}", gpu.name);
    }
}

/// Sums of what is finite are finite; an infinite gradient stays one, for whoever clips the sum.
#[test]
fn accumulators_saturate_and_hide_nothing() {
    let gpu = gpu();
    let batches = [[3e38f32, -3e38, 1.0, f32::INFINITY], [3e38, -3e38, 2.0, 1.0]];
    let want = [f32::MAX, f32::MIN, 3.0, f32::INFINITY];
    let mut sum = [f32::NAN; 4];
    for (i, g) in batches.iter().enumerate() {
        cpu::accumulate(&mut [SumMut::new("w", &g[..], &mut sum)], i == 0).unwrap();
    }
    assert_eq!(sum, want);
    let Some(gpu) = &gpu else { return };
    let micro = gpu.buffer(bytemuck::cast_slice(&batches[0]));
    let sum = gpu.buffer(&[0; 16]);
    let accumulator =
        gpu.clipper.prepare_accumulation(&[Grad::new("w", &micro).accumulator(&sum, 0)]).unwrap();
    for (i, g) in batches.iter().enumerate() {
        gpu.queue.write_buffer(&micro, 0, bytemuck::cast_slice(g));
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        if i == 0 {
            accumulator.record_first(&mut encoder)
        } else {
            accumulator.record_next(&mut encoder)
        }
        gpu.queue.submit([encoder.finish()]);
    }
    assert_eq!(gpu.read::<f32>(&sum), want, "{}", gpu.name);
}
