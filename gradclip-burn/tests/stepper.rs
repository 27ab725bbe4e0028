//! Clip and step in one, against Burn's optimisers behind a clip of plain Burn operations.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamConfig, AdamWConfig, GradientsParams, LionConfig, ModuleOptimizer, SgdConfig};
use burn::tensor::{FloatDType, Tensor};
use gradclip_burn::{
    Adam, Clip, Clipper, Error, Lion, NonFinite, Optimizer, OptimizerError, Rates, Sgd, Stepper,
};

use common::{
    Gpu, Mlp, Pair, assert_same_bits, composed, difference, gpu, mlp, norm, read, read_parameters, tensor,
};

/// What Burn's f32 constants are: 1 - 0.999f32 differs from 0.001 by 5e-5 of it.
fn burns(constant: f32) -> f64 {
    f64::from(constant)
}

fn adamw() -> Adam {
    Adam::adamw(0.0).betas(burns(0.9), burns(0.999)).eps(burns(1e-5)).weight_decay(burns(0.01))
}

fn burns_adamw() -> ModuleOptimizer {
    AdamWConfig::new().with_weight_decay(0.01).init()
}

fn linear(gpu: &Gpu) -> Linear {
    let mut model = LinearConfig::new(24, 8).init(&gpu.device);
    model.weight = Param::from_tensor(tensor(1, [24, 8], 1.0, &gpu.device));
    model.bias = Some(Param::from_tensor(tensor(2, [8], 1.0, &gpu.device)));
    model
}

/// Gradients of a linear regression, which is convex: what rounding changes in one step, later ones do not enlarge.
fn regression(gpu: &Gpu, model: &Linear, step: u64) -> GradientsParams {
    let (input, target) =
        (tensor(2 * step, [32, 24], 1.0, &gpu.device), tensor(2 * step + 1, [32, 8], 1.0, &gpu.device));
    let loss = (model.forward(input) - target).powi_scalar(2).sum().mul_scalar(100.0);
    GradientsParams::from_grads(loss.backward(), model)
}

fn trained(gpu: &Gpu, steps: u64, mut step: impl FnMut(Linear, GradientsParams) -> Linear) -> Linear {
    (0..steps).fold(linear(gpu), |model, i| {
        let grads = regression(gpu, &model, i);
        step(model, grads)
    })
}

/// Both trained for 200 steps: the largest difference relative to the largest parameter, and the stepper.
fn beside(gpu: &Gpu, ours: impl Into<Optimizer>, mut theirs: ModuleOptimizer, lr: f64) -> (f64, Stepper) {
    let steps = 200;
    let stepper = Stepper::new(&gpu.device, &gpu.setup, Clip::global_norm(1.0), ours).unwrap();
    let here = trained(gpu, steps, |model, grads| stepper.step(lr, model, grads).unwrap());
    let there = trained(gpu, steps, |model, mut grads| {
        composed(&model, &mut grads, 1.0);
        theirs.step(lr, model, grads)
    });
    let unclipped = trained(gpu, 1, |model, _| model);
    let [here, there, before] = [&here, &there, &unclipped].map(read_parameters);
    assert!(difference(&there, &before) > 50.0 * difference(&here, &there), "it hardly moved");
    let report = stepper.report().unwrap();
    assert_eq!((report.step, report.clipped_steps), (steps, steps));
    // Parameters moved where they lie, and no gradient was copied.
    let counts = stepper.counts();
    assert_eq!((counts.copied_parameters, counts.copied), (0, 0), "{counts:?}");
    assert!(counts.prepared <= 4 && counts.prepared + counts.reused == steps, "{counts:?}");
    (difference(&here, &there), stepper)
}

#[test]
fn two_hundred_steps_of_adamw_are_those_of_burn() {
    let Some(gpu) = gpu() else { return };
    let lr = 1e-3;
    let (off, stepper) = beside(gpu, adamw(), burns_adamw(), lr);
    // Burn's 1 - β₂ᵗ in f32 is off by some 2^-24 of 1, which is 2^-24 / (0.001 t) of itself and half of that of a step:
    // lr · 3e-5 / t, summed over t lr · 2e-4. Gradients are off by some 100 roundings; Adam divides that by their
    // own size, so a step is off by 100 · 2^-24 of lr, all of them by 200 times that: lr · 1.2e-3. Parameters are rounded 200 times
    // at 2^-25 of 1: as far as they all point one way 6e-6, usually a tenth of that.
    let allowed = lr * 1.4e-3 + 200.0 * 2f64.powi(-25);
    println!("AdamW: {off:.2e} of the largest parameter, {allowed:.2e} allowed");
    assert!(off < allowed, "{off} {allowed}");
    assert_eq!(stepper.state_bytes(), 2 * 4 * (24 * 8 + 8));
}

#[test]
fn other_optimisers_are_those_of_burn() {
    let Some(gpu) = gpu() else { return };
    // Steps of a clipped gradient are at most lr long, and off by some hundred roundings of that each; parameters are rounded.
    let allowed = |lr: f64| 200.0 * (lr * 300.0 * 2f64.powi(-24) + 2f64.powi(-25));
    let lr = 0.02;
    let (off, _) = beside(gpu, Sgd::new(0.0), SgdConfig::new().init(), lr);
    assert!(off < allowed(lr), "SGD: {off}");
    let momentum = MomentumConfig { momentum: 0.9, dampening: 0.1, nesterov: false };
    let theirs = SgdConfig::new().with_momentum(Some(momentum)).init();
    let (off, _) = beside(gpu, Sgd::new(0.0).momentum(burns(0.9)).dampening(0.1), theirs, lr);
    assert!(off < allowed(lr), "momentum: {off}");
    let (off, _) = beside(
        gpu,
        Adam::new(0.0).betas(burns(0.9), burns(0.999)).eps(burns(1e-5)).amsgrad(true),
        AdamConfig::new().with_amsgrad(true).init(),
        1e-3,
    );
    assert!(off < 1e-3 * 1.4e-3 + 200.0 * 2f64.powi(-25), "AMSGrad: {off}");
}

#[test]
fn lion_moves_as_burns_does() {
    let Some(gpu) = gpu() else { return };
    // Signs of sums near 0 hang on rounding, so few steps and most elements: one that differs is off by 2 lr.
    let (lr, steps) = (1e-3, 10);
    let ours = Lion::new(0.0).betas(burns(0.9), burns(0.99)).weight_decay(burns(0.1));
    let stepper = Stepper::new(&gpu.device, &gpu.setup, Clip::global_norm(1.0), ours).unwrap();
    let mut theirs = LionConfig::new().with_weight_decay(0.1).init();
    let here = trained(gpu, steps, |model, grads| stepper.step(lr, model, grads).unwrap());
    let there = trained(gpu, steps, |model, mut grads| {
        composed(&model, &mut grads, 1.0);
        theirs.step(lr, model, grads)
    });
    let [here, there, before] = [&here, &there, &linear(gpu)].map(read_parameters);
    let pairs = |a: &[common::Copied], b: &[common::Copied]| {
        let values = |c: &[common::Copied]| c.iter().flat_map(|c| c.values.clone()).collect::<Vec<f32>>();
        values(a).into_iter().zip(values(b)).collect::<Vec<_>>()
    };
    let off = pairs(&here, &there).into_iter().filter(|(a, b)| (a - b).abs() > 1e-6).count();
    assert!(off <= 4, "{off} of 200 elements");
    let moved = pairs(&here, &before).into_iter().filter(|(a, b)| (a - b).abs() > 1e-4).count();
    assert!(moved > 180, "{moved} of 200 elements");
}

#[test]
fn a_clone_of_the_model_keeps_its_values() {
    let Some(gpu) = gpu() else { return };
    let stepper = Stepper::new(&gpu.device, &gpu.setup, Clip::global_norm(1.0), Sgd::new(0.0)).unwrap();
    let mut model = linear(gpu);
    let kept = model.clone();
    let before = read_parameters(&kept);
    model = stepper.step(0.5, model, regression(gpu, &kept, 0)).unwrap();
    assert_eq!(stepper.counts().copied_parameters, 2);
    assert_same_bits("the clone", &read_parameters(&kept), &before);
    assert!(difference(&read_parameters(&model), &before) > 1e-3);
    drop(kept);
    // Nobody else sees them now.
    let grads = regression(gpu, &model, 1);
    model = stepper.step(0.5, model, grads).unwrap();
    assert_eq!(stepper.counts().copied_parameters, 2);
    // A tensor that was taken out before, and is read after.
    let weight = model.weight.val();
    let before = weight.clone().inner().into_data();
    let grads = regression(gpu, &model, 2);
    model = stepper.step(0.5, model, grads).unwrap();
    assert_eq!(weight.inner().into_data(), before);
    assert_eq!(stepper.counts().copied_parameters, 3);
    assert!(model.weight.val().is_require_grad());
}

#[test]
fn what_has_no_gradient_stays() {
    let Some(gpu) = gpu() else { return };
    let stepper = Stepper::new(&gpu.device, &gpu.setup, Clip::global_norm(1.0), adamw()).unwrap();
    let mut model = mlp(gpu);
    model.layers[1] = model.layers[1].clone().no_grad();
    let before = read_parameters(&model);
    for step in 0..3 {
        let grads = model.grads(step, 1.0, &gpu.device);
        assert_eq!(grads.len(), 4);
        model = stepper.step(1e-2, model, grads).unwrap();
    }
    let after = read_parameters(&model);
    for (a, b) in after.iter().zip(&before) {
        assert_eq!(a == b, a.path.starts_with("layers.1"), "{}", a.path);
    }
    assert!(!model.layers[1].weight.val().is_require_grad());
    let names: Vec<String> = stepper.report().unwrap().tensors.iter().map(|t| t.name.to_string()).collect();
    assert_eq!(names, ["layers.0.weight", "layers.0.bias", "layers.2.weight", "layers.2.bias"]);
}

#[test]
fn rates_are_by_parameter() {
    let Some(gpu) = gpu() else { return };
    let decaying = Adam::adamw(0.0).weight_decay(0.5);
    let stepper =
        Stepper::new(&gpu.device, &gpu.setup, Clip::global_norm(1.0), decaying).unwrap().rates(|parameter| {
            match (parameter.path, parameter.module, parameter.shape) {
                ("bias", "Linear", [8]) => Rates { lr: 0.0, weight_decay: Some(0.0) },
                _ => Rates { weight_decay: Some(0.0), ..Rates::default() },
            }
        });
    let plain = Adam::adamw(0.0).weight_decay(0.0);
    let other = Stepper::new(&gpu.device, &gpu.setup, Clip::global_norm(1.0), plain).unwrap();
    let [given, required] = [&stepper, &other].map(|stepper| {
        read_parameters(&trained(gpu, 3, |model, grads| stepper.step(0.1, model, grads).unwrap()))
    });
    let before = read_parameters(&linear(gpu));
    assert_same_bits("a factor of 0", &given[1..], &before[1..]);
    assert!(difference(&given[..1], &before[..1]) > 0.1);
    // The first step has the same gradients, later ones a bias that has not moved.
    assert!(difference(&given[..1], &required[..1]) < 0.05);
}

#[test]
fn a_step_that_is_refused_gives_all_back() {
    let Some(gpu) = gpu() else { return };
    if !gpu.device.supports_dtype(burn::tensor::DType::F16) {
        eprintln!("skipped: the device has no f16");
        return;
    }
    let stepper = Stepper::new(&gpu.device, &gpu.setup, Clip::global_norm(1.0), adamw()).unwrap();
    let mut model = Mlp::new(&[12, 9, 3], &gpu.device);
    let half = model.layers[1].weight.val().inner().cast(FloatDType::F16);
    model.layers[1].weight = Param::from_tensor(Tensor::from_inner(half));
    let before = read_parameters(&model);
    let mut grads = Mlp::new(&[12, 9, 3], &gpu.device).grads(0, 1.0, &gpu.device);
    assert!(grads.remove::<2>(model.layers[0].weight.id).is_none(), "another model's");
    let device = gpu.device.clone().inner();
    grads = GradientsParams::new();
    grads.register(model.layers[0].weight.id, tensor::<2>(1, [12, 9], 9.0, &device));
    grads.register(model.layers[1].weight.id, tensor::<2>(2, [9, 3], 9.0, &device));
    let registered = read(&model, &grads);
    let refused = stepper.step(0.1, model, grads).unwrap_err();
    let words = refused.to_string();
    assert!(words.contains("layers.1.weight") && words.contains("f32"), "{words}");
    assert!(matches!(refused.error, Error::DType { .. }));
    let (model, mut grads) = (refused.model, refused.grads);
    assert_same_bits("parameters", &read_parameters(&model), &before);
    assert_same_bits("gradients", &read(&model, &grads), &registered);
    // What Burn can do, it does.
    let clipper = Clipper::new(&gpu.device, &gpu.setup, Clip::global_norm(1.0)).unwrap();
    clipper.clip(&model, &mut grads).unwrap();
    let model = SgdConfig::new().init().step(0.1, model, grads);
    assert!(difference(&read_parameters(&model), &before) > 1e-3);
}

#[test]
fn other_parameters_than_before_are_refused() {
    let Some(gpu) = gpu() else { return };
    let stepper = Stepper::new(&gpu.device, &gpu.setup, Clip::global_norm(1.0), adamw()).unwrap();
    let device = gpu.device.clone().inner();
    let model = Pair::new(&gpu.device);
    let of = |both: bool| {
        let mut grads = GradientsParams::new();
        grads.register(model.vector.id, tensor::<1>(1, [7], 1.0, &device));
        if both {
            grads.register(model.matrix.id, tensor::<2>(2, [6, 5], 1.0, &device));
        }
        grads
    };
    let (both, one) = (of(true), of(false));
    let again = of(true);
    let model = stepper.step(0.1, model, both).unwrap();
    let before = read_parameters(&model);
    let refused = stepper.step(0.1, model, one).unwrap_err();
    assert!(matches!(refused.error, Error::Prepare(_)), "{refused}");
    assert_eq!(refused.grads.len(), 1);
    assert_same_bits("parameters", &read_parameters(&refused.model), &before);
    // A `?` into this crate's error.
    let model = (|| Ok::<_, Error>(stepper.step(0.1, refused.model, again)?))().unwrap();
    assert!(difference(&read_parameters(&model), &before) > 0.01);
    assert_eq!(stepper.report().unwrap().step, 2);
}

#[test]
fn nothing_moves_where_a_gradient_is_not_finite() {
    let Some(gpu) = gpu() else { return };
    let clip = Clip::global_norm(1.0).on_non_finite(NonFinite::Skip);
    let stepper = Stepper::new(&gpu.device, &gpu.setup, clip, adamw()).unwrap();
    let device = gpu.device.clone().inner();
    let model = Pair::new(&gpu.device);
    let before = read_parameters(&model);
    let mut grads = GradientsParams::new();
    grads.register(model.matrix.id, tensor::<2>(2, [6, 5], 1.0, &device));
    grads.register(model.vector.id, Tensor::<1>::from_floats([f32::NAN; 7], &device));
    let model = stepper.step(0.1, model, grads).unwrap();
    assert_same_bits("parameters", &read_parameters(&model), &before);
    let report = stepper.report().unwrap();
    assert_eq!(report.tensors.iter().find(|t| t.non_finite > 0).unwrap().name.to_string(), "vector");
}

#[test]
fn constants_are_checked() {
    let Some(gpu) = gpu() else { return };
    let clip = Clip::global_norm(1.0);
    let wrong = Stepper::new(&gpu.device, &gpu.setup, clip, Adam::new(0.1).betas(0.9, 1.0)).unwrap_err();
    assert!(matches!(wrong, Error::Optimizer(OptimizerError::Constant { .. })), "{wrong}");
    let stepper = Stepper::new(&gpu.device, &gpu.setup, clip, Adam::new(0.1)).unwrap();
    let model = linear(gpu);
    let grads = regression(gpu, &model, 0);
    let exact = norm(&read(&model, &grads));
    let refused = stepper.step(-1.0, model, grads).unwrap_err();
    assert!(matches!(refused.error, Error::Optimizer(_)), "{refused}");
    stepper.step(1.0, refused.model, refused.grads).unwrap();
    let report = stepper.report().unwrap();
    assert_eq!(report.step, 1);
    assert!((report.norm().unwrap() / exact - 1.0).abs() < 1e-6);
}
