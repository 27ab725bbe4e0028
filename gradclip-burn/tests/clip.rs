//! What `clip` makes of gradients: against f64 on the host, against a clip of plain Burn operations, and bit
//! for bit against the library's CPU path.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use burn::module::Module;
use burn::nn::LinearConfig;
use burn::optim::GradientsParams;
use burn::tensor::{DType, FloatDType, Tensor, TensorData};
use gradclip::cpu::{self, GradMut};
use gradclip_burn::{Adapt, Clip, Clipper, Error, History, Units};

use common::{
    Gpu, Pair, assert_same_bits, composed, difference, gpu, mlp, no_group, norm, numbers, on_cpu, read,
    same_as_cpu, tensor,
};

#[test]
fn a_global_norm_is_what_f64_says() {
    let Some(gpu) = gpu() else { return };
    let model = mlp(gpu);
    for (scale, clips) in [(1e3, true), (1e-3, false)] {
        let clipper = Clipper::new(&gpu.device, &gpu.setup, Clip::global_norm(0.5)).unwrap();
        let mut grads = model.grads(3, scale, &gpu.device);
        let before = read(&model, &grads);
        clipper.clip(&model, &mut grads).unwrap();
        let after = read(&model, &grads);
        let report = clipper.report().unwrap();
        let exact = norm(&before);
        assert_eq!(report.clipped(), clips);
        // 0.65 ulp of an f32, an ulp being at most 2^-23 of it.
        assert!((report.norm().unwrap() / exact - 1.0).abs() < 0.65 * 2f64.powi(-23), "{report:?} {exact}");
        let factor = if clips { 0.5 / exact } else { 1.0 };
        for (b, a) in before.iter().zip(&after) {
            for (&x, &y) in b.values.iter().zip(&a.values) {
                // The norm is off by 0.65 ulp, the quotient and the product by half an ulp each: 1.65.
                let required = f64::from(x) * factor;
                let allowed = if clips { 1.65 * 2f64.powi(-23) * required.abs() } else { 0.0 };
                assert!((f64::from(y) - required).abs() <= allowed, "{}: {y}, {required}", a.path);
            }
        }
        let names: Vec<&str> = report.tensors.iter().map(|t| &*t.name).collect();
        let paths: Vec<&str> = before.iter().map(|c| c.path.as_str()).collect();
        assert_eq!(names, paths);
        assert!(paths.contains(&"layers.0.weight") && paths.contains(&"layers.2.bias"), "{paths:?}");
        for (t, c) in report.tensors.iter().zip(&before) {
            let exact = norm(std::slice::from_ref(c));
            assert!((t.norm / exact - 1.0).abs() < 0.65 * 2f64.powi(-23), "{}", t.name);
        }
    }
}

#[test]
fn plain_burn_operations_agree() {
    let Some(gpu) = gpu() else { return };
    let model = mlp(gpu);
    let clipper = Clipper::new(&gpu.device, &gpu.setup, Clip::global_norm(0.5)).unwrap();
    let [mut ours, mut theirs] = [0, 1].map(|_| model.grads(3, 1e3, &gpu.device));
    clipper.clip(&model, &mut ours).unwrap();
    composed(&model, &mut theirs, 0.5);
    // Plain f32: a sum of n = 1192 squares in any order is off by at most n 2^-24 of it, its root by half
    // of that; then four roundings. Ours adds less than one.
    let allowed = (1192.0 / 2.0 + 6.0) * 2f64.powi(-24);
    let given = difference(&read(&model, &ours), &read(&model, &theirs));
    assert!(given < allowed, "{given} {allowed}");
    assert!(given < 1e-6, "{given}: errors of a sum do not usually all point one way");
}

#[test]
fn every_scope_has_the_bits_of_the_cpu_path() {
    let Some(gpu) = gpu() else { return };
    same_as_cpu(gpu, Clip::global_norm(0.1), 2, no_group);
    same_as_cpu(gpu, Clip::per_tensor_norm(0.1), 2, no_group);
    same_as_cpu(gpu, Clip::value(0.01), 1, no_group);
    same_as_cpu(gpu, Clip::per_unit_norm(0.1, Units::OutputLast), 1, no_group);
}

#[test]
fn agc_reads_the_models_parameters() {
    let Some(gpu) = gpu() else { return };
    // Burn's Linear has its outputs last.
    same_as_cpu(gpu, Clip::agc(0.01, Units::OutputLast), 2, no_group);
}

#[test]
fn thresholds_adapt_over_steps() {
    let Some(gpu) = gpu() else { return };
    same_as_cpu(gpu, Clip::global_norm(1.0).adapt(Adapt::Mean { factor: 1.1, window: 5 }), 12, no_group);
    same_as_cpu(gpu, Clip::adagc(1.0), 4, no_group);
}

#[test]
fn halves_are_clipped_as_halves() {
    let Some(gpu) = gpu() else { return };
    if !gpu.device.supports_dtype(DType::F16) {
        eprintln!("skipped: the device has no f16");
        return;
    }
    let model = mlp(gpu);
    let clipper = Clipper::new(&gpu.device, &gpu.setup, Clip::global_norm(0.1)).unwrap();
    let mut grads = model.grads(4, 10.0, &gpu.device);
    // Weights in f16, biases in f32: mixed in one set.
    for layer in &model.layers {
        let weight = grads.remove::<2>(layer.weight.id).unwrap();
        grads.register(layer.weight.id, weight.cast(FloatDType::F16));
    }
    let mut required = read(&model, &grads);
    assert_eq!(required.iter().filter(|c| c.dtype == DType::F16).count(), 3);
    on_cpu(&mut required, &[], &Clip::global_norm(0.1), &mut History::default(), no_group);
    clipper.clip(&model, &mut grads).unwrap();
    assert_same_bits("halves", &read(&model, &grads), &required);
}

/// No kernel of Burn's reads bf16 where the shading language has none: such gradients come from elsewhere.
#[test]
fn bf16_is_clipped_as_bf16() {
    let Some(gpu) = gpu() else { return };
    let model = Pair::new(&gpu.device);
    let clip = Clip::global_norm(0.25);
    let mut values: Vec<half::bf16> = numbers(9, 30).into_iter().map(half::bf16::from_f32).collect();
    let data = TensorData::new(values.clone(), [6, 5]);
    let mut grads = GradientsParams::new();
    let device = gpu.device.clone().inner();
    grads.register(model.matrix.id, Tensor::<2>::from_data(data, (&device, DType::BF16)));
    Clipper::new(&gpu.device, &gpu.setup, clip).unwrap().clip(&model, &mut grads).unwrap();
    let given = grads.get::<2>(model.matrix.id).unwrap();
    assert_eq!(given.dtype(), DType::BF16);
    cpu::clip(&mut [GradMut::bf16("matrix", &mut values)], &clip).unwrap();
    assert_eq!(given.into_data().try_to_vec::<half::bf16>().unwrap(), values);
}

/// Gradients that are not plain memory of their own.
fn odd(gpu: &Gpu, make: impl Fn() -> (Tensor<2>, Tensor<1>)) -> u64 {
    let model = Pair::new(&gpu.device);
    let clip = Clip::global_norm(0.25);
    let clipper = Clipper::new(&gpu.device, &gpu.setup, clip).unwrap();
    let mut grads = GradientsParams::new();
    let (matrix, vector) = make();
    grads.register(model.matrix.id, matrix);
    grads.register(model.vector.id, vector);
    let mut required = read(&model, &grads);
    on_cpu(&mut required, &[], &clip, &mut History::default(), no_group);
    clipper.clip(&model, &mut grads).unwrap();
    assert_same_bits("odd gradients", &read(&model, &grads), &required);
    clipper.counts().copied
}

#[test]
fn a_gradient_that_others_see_is_copied_first() {
    let Some(gpu) = gpu() else { return };
    let device = gpu.device.clone().inner();
    let matrix = tensor::<2>(5, [6, 5], 1.0, &device);
    let before = matrix.clone().into_data();
    let of = |matrix: &Tensor<2>| (matrix.clone(), tensor::<1>(6, [7], 1.0, &device));
    assert_eq!(odd(gpu, || of(&matrix)), 1);
    assert_eq!(matrix.clone().into_data(), before, "the clone kept its values");
    // A view of it is another tensor over the same memory.
    let view = matrix.clone().reshape([5, 6]);
    drop(matrix);
    let matrix = view.clone().reshape([6, 5]);
    assert_eq!(odd(gpu, || of(&matrix)), 1);
    drop(matrix);
    assert_eq!(view.into_data().try_to_vec::<f32>().unwrap(), before.try_to_vec::<f32>().unwrap());
}

#[test]
fn strides_do_not_matter() {
    let Some(gpu) = gpu() else { return };
    let device = gpu.device.clone().inner();
    let vector = || tensor::<1>(6, [7], 1.0, &device);
    assert_eq!(odd(gpu, || (tensor::<2>(5, [5, 6], 1.0, &device).transpose(), vector())), 1);
    assert_eq!(odd(gpu, || (tensor::<2>(5, [6, 1], 1.0, &device).expand([6, 5]), vector())), 1);
    assert_eq!(odd(gpu, || (tensor::<2>(5, [1, 5], 1.0, &device).expand([6, 5]), vector())), 1);
    let all = || tensor::<2>(5, [1, 1], 1.0, &device).expand([6, 5]);
    assert_eq!(odd(gpu, || (all(), tensor::<1>(6, [1], 1.0, &device).expand([7]))), 2);
    assert_eq!(odd(gpu, || (tensor::<2>(5, [6, 5], 1.0, &device), vector())), 0, "plain ones are not copied");
}

#[derive(Module, Debug)]
struct Partly {
    used: burn::nn::Linear,
    unused: burn::nn::Linear,
}

#[derive(Module, Debug)]
struct Nothing {
    size: usize,
}

#[test]
fn parameters_without_gradients_are_left_out() {
    let Some(gpu) = gpu() else { return };
    let linear = || LinearConfig::new(4, 3).init(&gpu.device);
    let model = Partly { used: linear(), unused: linear() };
    let clipper = Clipper::new(&gpu.device, &gpu.setup, Clip::global_norm(1e-3)).unwrap();
    assert!(matches!(clipper.report(), Err(Error::NothingClipped { .. })));
    let loss = model.used.forward(tensor(8, [2, 4], 1.0, &gpu.device)).powi_scalar(2).sum();
    let mut grads = GradientsParams::from_grads(loss.backward(), &model);
    clipper.clip(&model, &mut grads).unwrap();
    assert_eq!(grads.len(), 2);
    let names: Vec<String> = clipper.report().unwrap().tensors.iter().map(|t| t.name.to_string()).collect();
    assert_eq!(names, ["used.weight", "used.bias"]);
    assert!((norm(&read(&model, &grads)) - 1e-3).abs() < 1e-9);
}

#[test]
fn an_empty_model_has_nothing_to_clip() {
    let Some(gpu) = gpu() else { return };
    let clipper = Clipper::new(&gpu.device, &gpu.setup, Clip::global_norm(1.0)).unwrap();
    let mut grads = GradientsParams::new();
    clipper.clip(&Nothing { size: 0 }, &mut grads).unwrap();
    clipper.clip(&mlp(gpu), &mut grads).unwrap();
    assert_eq!((grads.len(), clipper.counts().prepared), (0, 0));
}

#[test]
fn one_parameter_in_two_places_counts_once() {
    let Some(gpu) = gpu() else { return };
    let first = LinearConfig::new(4, 4).init(&gpu.device);
    let model = Partly { used: first.clone(), unused: first };
    let input = tensor(8, [2, 4], 1.0, &gpu.device);
    let loss = model.unused.forward(model.used.forward(input)).powi_scalar(2).sum();
    let mut grads = GradientsParams::from_grads(loss.backward(), &model);
    let clipper = Clipper::new(&gpu.device, &gpu.setup, Clip::global_norm(1e-3)).unwrap();
    clipper.clip(&model, &mut grads).unwrap();
    assert_eq!(clipper.report().unwrap().tensors.len(), 2);
}

#[test]
fn clips_change_between_steps() {
    let Some(gpu) = gpu() else { return };
    let model = mlp(gpu);
    let clipper = Clipper::new(&gpu.device, &gpu.setup, Clip::global_norm(1.0)).unwrap();
    let norm_after = |clipper: &Clipper| {
        let mut grads = model.grads(3, 1e3, &gpu.device);
        clipper.clip(&model, &mut grads).unwrap();
        norm(&read(&model, &grads))
    };
    let close =
        |given: f64, required: f64| assert!((given / required - 1.0).abs() < 1e-6, "{given} {required}");
    close(norm_after(&clipper), 1.0);
    clipper.set_threshold(0.25).unwrap();
    close(norm_after(&clipper), 0.25);
    assert!(clipper.set_threshold(-1.0).is_err());
    clipper.set_clip(Clip::global_norm(2.0)).unwrap();
    close(norm_after(&clipper), 2.0);
    let before = clipper.report().unwrap();
    clipper.set_unscale(0.5).unwrap();
    close(norm_after(&clipper), 2.0);
    let after = clipper.report().unwrap();
    close(after.norm().unwrap(), before.norm().unwrap() / 2.0);
    assert_eq!((before.step, after.step), (3, 4), "steps are counted over all clips");
    clipper.set_clip(Clip::global_norm(1.0).adapt(Adapt::zclip())).unwrap();
    norm_after(&clipper);
    assert_eq!(clipper.report().unwrap().step, 1, "another way to adapt begins anew");
}

#[test]
fn reports_arrive_late_and_in_order() {
    let Some(gpu) = gpu() else { return };
    let model = mlp(gpu);
    let clipper = Clipper::new(&gpu.device, &gpu.setup, Clip::global_norm(1.0)).unwrap();
    let mut steps = Vec::new();
    for step in 0..10 {
        clipper.clip(&model, &mut model.grads(step, 1.0, &gpu.device)).unwrap();
        while let Some(report) = clipper.poll() {
            steps.push(report.unwrap().step);
        }
    }
    assert_eq!(clipper.report().unwrap().step, 10);
    while let Some(report) = clipper.poll() {
        steps.push(report.unwrap().step);
    }
    assert!(steps.is_sorted(), "{steps:?}");
    assert_eq!(steps.len() as u64 + clipper.dropped(), 10);
}
