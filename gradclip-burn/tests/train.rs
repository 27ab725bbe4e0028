//! Whole trainings: commands in their order without a host wait, and the same losses as with a clip composed
//! of plain Burn operations.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::optim::{GradientsAccumulator, GradientsParams, SgdConfig};
use burn::tensor::Tensor;
use gradclip::{Clip, Sgd};
use gradclip_burn::{Clipper, Stepper};

use common::{Copied, Gpu, Mlp, composed, difference, gpu, mlp, norm, read, read_parameters, tensor};

/// Steps on a linear regression, which is convex: what rounding changes in one step, later ones do not
/// enlarge. Nothing is read before the end.
fn regression(gpu: &Gpu, steps: u64, mut clip: impl FnMut(&Linear, &mut GradientsParams)) -> Linear {
    let mut model = LinearConfig::new(24, 8).init(&gpu.device);
    model.weight = Param::from_tensor(tensor(1, [24, 8], 1.0, &gpu.device));
    model.bias = Some(Param::from_tensor(tensor(2, [8], 1.0, &gpu.device)));
    let mut optimizer = SgdConfig::new().init();
    for step in 0..steps {
        let input = tensor(2 * step, [32, 24], 1.0, &gpu.device);
        let target = tensor(2 * step + 1, [32, 8], 1.0, &gpu.device);
        let loss = (model.forward(input) - target).powi_scalar(2).sum().mul_scalar(100.0);
        let mut grads = GradientsParams::from_grads(loss.backward(), &model);
        clip(&model, &mut grads);
        model = optimizer.step(0.05, model, grads);
    }
    model
}

#[test]
fn the_clip_runs_between_backward_and_step_without_a_wait() {
    let Some(gpu) = gpu() else { return };
    let steps = 25;
    let clipper = Clipper::new(&gpu.device, &gpu.setup, Clip::global_norm(1.0)).unwrap();
    let ours = regression(gpu, steps, |model, grads| clipper.clip(model, grads).unwrap());
    let theirs = regression(gpu, steps, |model, grads| composed(model, grads, 1.0));
    let unclipped = regression(gpu, 1, |_, _| ());
    let [ours, theirs, unclipped] = [&ours, &theirs, &unclipped].map(read_parameters);
    // Every step moves parameters by 0.05 in all, and each gradient is off by a few hundred roundings at
    // most (sums of 32 products, of 192 squares): 25 x 0.05 x 300 x 2^-24 of parameters near 1.
    let given = difference(&ours, &theirs);
    assert!(given < 25.0 * 0.05 * 300.0 * 2f64.powi(-24), "{given}");
    // A clip that came too late, or not at all, would show: gradients are some thousand times too long.
    assert!(difference(&ours, &unclipped) > 1.0);
    assert_eq!(clipper.report().unwrap().clipped_steps, steps);
}

/// Losses of `steps` steps of an MLP, read at the end, on batches that come round again.
fn losses(gpu: &Gpu, steps: u64, mut clip: impl FnMut(&Mlp, &mut GradientsParams)) -> Vec<f32> {
    let mut model = Mlp::new(&[16, 32, 32, 4], &gpu.device);
    let mut optimizer = SgdConfig::new().init();
    let mut losses = Vec::new();
    for step in 0..steps {
        let batch = 2 * (step % 8);
        let (input, target) =
            (tensor(batch, [16, 16], 1.0, &gpu.device), tensor(batch + 1, [16, 4], 0.5, &gpu.device));
        let loss = model.loss(input, target, 50.0);
        losses.push(loss.clone().inner());
        let mut grads = GradientsParams::from_grads(loss.backward(), &model);
        clip(&model, &mut grads);
        model = optimizer.step(0.02, model, grads);
    }
    Tensor::cat(losses, 0).into_data().try_to_vec().unwrap()
}

#[test]
fn two_hundred_steps_of_an_mlp_have_the_losses_of_the_composed_clip() {
    let Some(gpu) = gpu() else { return };
    let steps = 200;
    let clipper = Clipper::new(&gpu.device, &gpu.setup, Clip::global_norm(1.0)).unwrap();
    let ours = losses(gpu, steps, |model, grads| clipper.clip(model, grads).unwrap());
    let theirs = losses(gpu, steps, |model, grads| composed(model, grads, 1.0));
    let unclipped = losses(gpu, steps, |_, _| ());
    let relative = |a: &[f32], b: &[f32]| -> Vec<f64> {
        a.iter().zip(b).map(|(&x, &y)| (f64::from(x) / f64::from(y) - 1.0).abs()).collect()
    };
    let largest = |v: &[f64]| v.iter().copied().fold(0.0, f64::max);
    let given = relative(&ours, &theirs);
    println!("relative differences: first 20 {:.1e}, all {:.1e}", largest(&given[..20]), largest(&given));
    let report = clipper.report().unwrap();
    assert!(report.clipped_steps > 100, "{} steps were clipped", report.clipped_steps);
    // A loss in f32 (sums of 32 products, three layers) is itself off by up to some 1e-6. A step of
    // length 0.02 adds what the composed clip's sum rounds, at most 1e-6 of 0.02; 200 steps add 4e-6 to
    // parameters of norm 10, and stretches where the descent pulls apart may enlarge that several times.
    assert!(largest(&given[..20]) < 2e-6, "{given:?}");
    assert!(largest(&given) < 2e-5, "{given:?}");
    assert!(largest(&relative(&ours, &unclipped)) > 1e-2, "the clip matters in this problem");
    assert!(ours[199] < 0.9 * ours[7], "it learns: {} {}", ours[7], ours[199]);
}

#[test]
fn micro_batches_add_up_in_burns_accumulator() {
    let Some(gpu) = gpu() else { return };
    let model = mlp(gpu);
    let sums = || {
        let mut sums = GradientsAccumulator::new();
        (0..4).for_each(|batch| sums.accumulate(&model, model.grads(batch, 1e3, &gpu.device)));
        sums.grads()
    };
    // Their mean on the host, and its clip.
    let batches: Vec<Vec<Copied>> =
        (0..4).map(|batch| read(&model, &model.grads(batch, 1e3, &gpu.device))).collect();
    let mut required = batches[0].clone();
    for (i, tensor) in required.iter_mut().enumerate() {
        let sum = |k: usize| batches.iter().map(|batch| f64::from(batch[i].values[k])).sum::<f64>();
        tensor.values = (0..tensor.values.len()).map(|k| (sum(k) / 4.0) as f32).collect();
    }
    let exact = norm(&required);
    for tensor in &mut required {
        tensor.values.iter_mut().for_each(|v| *v = (f64::from(*v) * 0.5 / exact) as f32);
    }
    let mean = Clip::global_norm(0.5).unscale(0.25);
    let clipper = Clipper::new(&gpu.device, &gpu.setup, mean).unwrap();
    let mut grads = sums();
    clipper.clip(&model, &mut grads).unwrap();
    // Each sum is rounded three times, at most 1.5 ulp of its largest part; the clip adds two roundings.
    let allowed = 8.0 * 2f64.powi(-23);
    assert!(difference(&read(&model, &grads), &required) < allowed);
    assert!((clipper.report().unwrap().norm().unwrap() / exact - 1.0).abs() < 1e-6);
    // The step makes the same of them.
    let before = read_parameters(&model);
    let stepper = Stepper::new(&gpu.device, &gpu.setup, mean, Sgd::new(1.0)).unwrap();
    let moved = read_parameters(&stepper.step(1.0, model.clone(), sums()).unwrap());
    for ((after, before), gradient) in moved.iter().zip(&before).zip(&required) {
        for ((a, b), g) in after.values.iter().zip(&before.values).zip(&gradient.values) {
            // A difference of numbers below 2 is rounded at 2^-24.
            assert!((b - a - g).abs() < 2f32.powi(-22), "{}: {a} {b} {g}", after.path);
        }
    }
}

/// A model as `TrainStep` wants it: it has all that a step needs, and is only lent.
#[derive(Module, Debug)]
struct Held {
    layers: Mlp,
    #[module(skip)]
    clipper: Clipper,
}

impl Held {
    fn step(&self, gpu: &Gpu, seed: u64) -> GradientsParams {
        let (input, target) =
            (tensor(seed, [16, 12], 1.0, &gpu.device), tensor(seed + 1, [16, 3], 1.0, &gpu.device));
        let mut grads = GradientsParams::from_grads(self.layers.loss(input, target, 1e3).backward(), self);
        self.clipper.clip(self, &mut grads).unwrap();
        grads
    }
}

#[test]
fn a_model_holds_its_clipper() {
    let Some(gpu) = gpu() else { return };
    let clipper = Clipper::new(&gpu.device, &gpu.setup, Clip::global_norm(0.5)).unwrap();
    let mut model = Held { layers: mlp(gpu), clipper: clipper.clone() };
    let mut optimizer = SgdConfig::new().init();
    for step in 0..5 {
        let grads = model.step(gpu, 2 * step);
        assert!((norm(&read(&model, &grads)) - 0.5).abs() < 1e-6);
        model = optimizer.step(0.01, model, grads);
        assert_eq!(clipper.report().unwrap().step, step + 1);
    }
    let names: Vec<String> = clipper.report().unwrap().tensors.iter().map(|t| t.name.to_string()).collect();
    assert_eq!(names[0], "layers.layers.0.weight");
}
