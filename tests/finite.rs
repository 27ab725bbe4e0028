//! What is finite stays finite: in place, in a step, in an accumulator. What unscaling takes above the
//! largest `f32` is non-finite for the policy, also at the last bit, with the same bits on CPU and GPU.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Data, Element, Gpu, Placing, Random, Tensor, gpu, on_both, on_cpu, steps};
use gradclip::cpu::{self, Moments, SumMut};
use gradclip::{
    Adam, Clip, Grad, History, LossScale, NonFinite, NormType, Optimizer, Report, Scope, Sgd, Units,
};

/// Clips in place on the CPU path, and on the GPU where there is one; both must agree.
fn clipped(gpu: &Option<common::Held>, data: impl Into<Data>, clip: &Clip) -> (Report, Vec<f32>) {
    let tensor = Tensor::new("g", data);
    let cut = matches!(clip.scope, Scope::Unit(_) | Scope::Row);
    let half = tensor.data.len() as u64 / 2;
    let tensor = if cut { tensor.shape(&[half, 2]) } else { tensor };
    let (report, after) = on_both(gpu, &[tensor], &clip.lossy_unscale(true));
    (report, after[0].data.floats())
}

/// The largest magnitude whose product with a factor is finite, and the next: by halving, without the library.
fn last_finite(factor: f32) -> (f32, f32) {
    let (mut low, mut high) = (0u32, f32::INFINITY.to_bits());
    while high - low > 1 {
        let middle = (low + high) / 2;
        if (f32::from_bits(middle) * factor).is_finite() { low = middle } else { high = middle }
    }
    (f32::from_bits(low), f32::from_bits(high))
}

/// TRIED T4, and its like: results of 16 bits.
#[test]
fn results_of_short_types_are_at_most_their_largest() {
    let gpu = gpu();
    let h = |values: &[f32], clip: Clip| clipped(&gpu, Data::rounded(Element::F16, values), &clip).1;
    let (inf, most) = (f32::INFINITY, 65_504.0);
    assert_eq!(h(&[100.0, 1.0], Clip::global_norm(1e6).unscale(1000.0)), [most, 1000.0]);
    assert_eq!(h(&[6e4, -6e4, 0.0, 1.0], Clip::sign(1e4).threshold(7e4)), [most, -most, 0.0, most]);
    assert_eq!(h(&[inf, -inf, 5.0, -70.0], Clip::value(1e5)), [most, -most, 5.0, -70.0]);
    assert_eq!(h(&[3.0, 4.0], Clip::normalize(1e6)), [most, most]);
    // Finite in f32, above the largest bf16 when rounded to it.
    let b = Data::rounded(Element::Bf16, &[3e38, 1.0]);
    let (_, after) = clipped(&gpu, b, &Clip::measure().unscale(1.132));
    assert_eq!(after[0], half::bf16::MAX.to_f32());
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
        let (last, next) = last_finite(unscale);
        for norm in [NormType::Two, NormType::One, NormType::Inf, NormType::P(3.0)] {
            let clip = Clip::global_norm(1.0).norm_type(norm).unscale(unscale);
            if matches!(norm, NormType::P(_)) {
                let (report, _) = on_cpu(&[vec![last, -next, 1e-3, next]], &clip);
                assert_eq!(report.non_finite(), 2, "{unscale:e}");
                continue;
            }
            let (report, after) = clipped(&gpu, vec![last, -last], &clip);
            assert_eq!((report.non_finite(), report.clipped()), (0, true), "{unscale:e} {norm:?}");
            assert!(after.iter().all(|x| x.is_finite()), "{unscale:e} {norm:?}");
            let offending = vec![1e-3, -next, last, next];
            let (report, after) = clipped(&gpu, &offending, &clip);
            assert_eq!((report.non_finite(), report.segments[0].non_finite), (2, 2), "{unscale:e} {norm:?}");
            assert!(report.segments[0].skipped && after == offending);
            let sanitize = clip.on_non_finite(NonFinite::Sanitize);
            let (report, after) = clipped(&gpu, &offending, &sanitize);
            assert!(report.non_finite() == 2 && after[1] == 0.0 && after[3] == 0.0 && after[2] != 0.0);
            assert!(report.norm().unwrap() >= f64::from(last) * f64::from(unscale) * (1.0 - 1e-6));
        }
        // Units, short and long chunks, and both ways to reduce them.
        for scope in [Scope::Unit(Units::OutputFirst), Scope::Unit(Units::OutputLast), Scope::Row] {
            let mut many = vec![1e-20f32; 40_000];
            (many[7], many[39_998], many[20_000]) = (next, -next, last);
            let clip = Clip::global_norm(1.0).scope(scope).unscale(unscale).never_above(false);
            let (report, _) = clipped(&gpu, many, &clip);
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
    // Times 6.
    let (last, next) = last_finite(6.0);
    for (value, offends) in [(last, 0), (next, 1)] {
        let mut own = [Tensor::new("g", vec![value, 1.0])];
        let placed = gpu.as_ref().map(|gpu| gpu.place(&own, Placing::APART));
        let report = cpu::clip_with(&mut common::grads(&mut own), &clip, &mut History::default()).unwrap();
        assert_eq!(report.non_finite(), offends);
        let (Some(gpu), Some(placed)) = (&gpu, placed) else { continue };
        assert_eq!(gpu.run(&gpu.clipper.prepare(&placed.grads, &clip).unwrap()), report, "{}", gpu.name);
        assert_eq!(placed.read(gpu).unwrap()[0].floats(), own[0].data.floats());
    }
}

/// Thresholds and factors beyond any `f32` saturate instead of overflowing.
#[test]
fn products_saturate() {
    let gpu = gpu();
    let big = vec![f32::MAX, -f32::MAX / 2.0, 1.0, 0.0];
    let (_, after) = clipped(&gpu, big, &Clip::normalize(f32::MAX).norm_type(NormType::One));
    assert!(after.iter().all(|x| x.is_finite()));
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
            let (_, after) = clipped(&gpu, &any, &clip.on_non_finite(policy));
            assert!(after.iter().all(|x| x.is_finite()), "{clip:?}");
        }
    }
}

/// Parameter and moments after some steps on the CPU path, and where there is a device on that.
fn after_steps(
    gpu: Option<&Gpu>,
    tensor: &Tensor,
    optimizer: Optimizer,
    clip: &Clip,
    steps_: usize,
) -> Vec<Vec<Vec<f32>>> {
    let mut own = [tensor.clone()];
    let (mut history, mut moments) = (History::default(), Moments::default());
    for _ in 0..steps_ {
        cpu::step(&mut steps(&mut own), clip, optimizer, &mut history, &mut moments).unwrap();
    }
    let parameter = own[0].parameter.as_ref().unwrap().floats();
    let mut all = vec![[vec![parameter], moments.tensors.concat()].concat()];
    all.extend(gpu.map(|gpu| {
        let placed = gpu.place(std::slice::from_ref(tensor), Placing::APART);
        let stepper = gpu.clipper.prepare_step(&placed.grads, clip, optimizer).unwrap();
        (0..steps_).for_each(|_| gpu.submit(|encoder| stepper.record_step(encoder)));
        let parameter = placed.parameters.as_ref().unwrap().read(gpu).unwrap()[0].floats();
        let moment = |buffer| gpu.read::<f32>(buffer)[..tensor.data.len()].to_vec();
        [vec![parameter], stepper.moments()[0].iter().map(|m| moment(&m.buffer)).collect()].concat()
    }));
    all
}

/// TRIED T4: g = 1e38 unscaled by 1000 moved a parameter to -inf, and counted. Finite ones saturate.
#[test]
fn steps_end_in_finite_parameters_and_state() {
    let gpu = gpu();
    let tensor = Tensor::new("w", vec![1e38f32, 1.0]).parameter(vec![1.0f32, 2.0]);
    let clip = Clip::measure().unscale(1000.0);
    let mut history = History::default();
    let (sgd, moments) = (Optimizer::from(Sgd::new(1.0)), &mut Moments::default());
    let report = cpu::step(&mut steps(&mut [tensor.clone()]), &clip, sgd, &mut history, moments).unwrap();
    assert_eq!((report.non_finite(), history.updates()), (1, 0));
    for all in after_steps(gpu.as_deref(), &tensor, sgd, &clip, 1) {
        assert_eq!(all[0], [1.0, 2.0]);
    }
    let g = vec![3e38f32, -3e38, 1e25, 1e-30, 0.0, f32::MAX];
    let tensor = Tensor::new("w", g).parameter(vec![-3e38f32, 3e38, 1.0, -1.0, 0.0, f32::MIN]);
    for optimizer in [
        Optimizer::from(Sgd::new(10.0)),
        Sgd::new(1e30).momentum(0.9).into(),
        Sgd::new(5.0).momentum(0.99).nesterov(true).weight_decay(1e5).into(),
        Adam::new(1e30).into(),
        Adam::new(0.1).betas(0.999, 0.5).weight_decay(1e10).into(),
        Adam::adamw(1e20).weight_decay(1e20).into(),
    ] {
        for all in after_steps(gpu.as_deref(), &tensor, optimizer, &Clip::measure(), 5) {
            assert!(all.iter().flatten().all(|x| x.is_finite()), "{optimizer:?}: {all:?}");
        }
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
    let micro = gpu.upload(bytemuck::cast_slice(&batches[0]));
    let sum = gpu.storage(16);
    let accumulator =
        gpu.clipper.prepare_accumulation(&[Grad::new("w", &micro).accumulator(&sum, 0)]).unwrap();
    for (i, g) in batches.iter().enumerate() {
        gpu.queue.write_buffer(&micro, 0, bytemuck::cast_slice(g));
        gpu.submit(|encoder| match i {
            0 => accumulator.record_first(encoder),
            _ => accumulator.record_next(encoder),
        });
    }
    assert_eq!(gpu.read::<f32>(&sum), want, "{}", gpu.name);
}
