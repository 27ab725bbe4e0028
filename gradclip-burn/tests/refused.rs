//! What is refused, and that gradients are then as they were.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, DeviceKind, FloatDType, Tensor};
use gradclip_burn::{Clip, ClipError, Clipper, Error, History, LossScale, PrepareError, Units};

use common::{Mlp, Pair, assert_same_bits, gpu, no_group, norm, on_cpu, read, read_parameters, tensor};

#[test]
fn a_clip_that_makes_no_sense_is_refused_at_once() {
    let Some(gpu) = gpu() else { return };
    let error = Clipper::new(&gpu.device, &gpu.setup, Clip::global_norm(-1.0)).unwrap_err();
    assert!(matches!(error, Error::Clip(_)), "{error}");
    // Units need another number of axes than the vector has: known when the gradients are.
    let clip = Clip::per_unit_norm(1.0, Units::over(&[3]));
    let clipper = Clipper::new(&gpu.device, &gpu.setup, clip).unwrap();
    let model = Mlp::new(&[12, 9, 3], &gpu.device);
    let mut grads = model.grads(3, 1.0, &gpu.device);
    let before = read(&model, &grads);
    let error = clipper.clip(&model, &mut grads).unwrap_err();
    assert!(error.to_string().contains("layers.0.weight"), "{error}");
    assert_same_bits("after an error", &read(&model, &grads), &before);
}

#[test]
fn other_types_and_shapes_are_named() {
    let Some(gpu) = gpu() else { return };
    let model = Pair::new(&gpu.device);
    let device = gpu.device.clone().inner();
    let clipper = Clipper::new(&gpu.device, &gpu.setup, Clip::agc(0.01, Units::OutputFirst)).unwrap();
    let mut grads = GradientsParams::new();
    grads.register(model.matrix.id, tensor::<2>(1, [5, 6], 1.0, &device));
    let error = clipper.clip(&model, &mut grads).unwrap_err();
    let Error::Shape { parameter, required, given } = error else { panic!("{error}") };
    assert_eq!((parameter.as_str(), required, given), ("matrix", vec![6, 5], vec![5, 6]));
    assert_eq!(grads.len(), 1);
    if device.supports_dtype(DType::F64) {
        let wide = tensor::<2>(1, [6, 5], 1.0, &device).cast(FloatDType::F64);
        grads.register(model.matrix.id, wide);
        let error = clipper.clip(&model, &mut grads).unwrap_err();
        assert!(matches!(&error, Error::DType { parameter, .. } if parameter == "matrix"), "{error}");
        assert_eq!(grads.len(), 1);
    }
}

#[test]
fn a_gradient_on_another_wgpu_device_is_named() {
    let Some(gpu) = gpu() else { return };
    let Ok(other) = Device::wgpu_options().device_kind(DeviceKind::Cpu).init() else {
        eprintln!("skipped: there is no second device");
        return;
    };
    let model = Mlp::new(&[12, 9, 3], &gpu.device);
    let clipper = Clipper::new(&gpu.device, &gpu.setup, Clip::global_norm(1e-3)).unwrap();
    let mut grads = model.grads(3, 1e3, &gpu.device);
    let id = model.layers[1].weight.id;
    let gradient = grads.remove::<2>(id).unwrap();
    grads.register(id, Tensor::<2>::from_data(gradient.into_data(), &other));
    let before = read(&model, &grads);
    let error = clipper.clip(&model, &mut grads).unwrap_err();
    assert!(matches!(&error, Error::Device { parameter, .. } if parameter == "layers.1.weight"), "{error}");
    assert_same_bits("after an error", &read(&model, &grads), &before);
}

/// The gradients of the model, the first weight's in f16.
fn with_halves(model: &Mlp, device: &Device) -> GradientsParams {
    let mut grads = model.grads(3, 10.0, device);
    let id = model.layers[0].weight.id;
    let gradient = grads.remove::<2>(id).unwrap();
    grads.register(id, gradient.cast(FloatDType::F16));
    grads
}

#[track_caller]
fn assert_lossy(error: &Error) {
    let (Error::Prepare(PrepareError::Clip(lossy)) | Error::Clip(lossy)) = error else { panic!("{error:?}") };
    assert!(
        matches!(lossy, ClipError::LossyUnscale { tensor, .. } if tensor == "layers.0.weight"),
        "{error}"
    );
}

#[test]
fn halves_are_not_unscaled_unless_asked_for() {
    let Some(gpu) = gpu() else { return };
    if !gpu.device.supports_dtype(DType::F16) {
        eprintln!("skipped: the device has no f16");
        return;
    }
    let model = Mlp::new(&[12, 9, 3], &gpu.device);
    let scaled = Clip::global_norm(0.1).loss_scale(LossScale::default().initial(1024.0));
    for clip in [scaled, Clip::global_norm(0.1).unscale(0.25)] {
        let clipper = Clipper::new(&gpu.device, &gpu.setup, clip).unwrap();
        let mut grads = with_halves(&model, &gpu.device);
        let before = read(&model, &grads);
        assert_lossy(&clipper.clip(&model, &mut grads).unwrap_err());
        assert_eq!(grads.len(), 4);
        assert_same_bits("after an error", &read(&model, &grads), &before);
        // Allowed, it is what the CPU path does.
        let lossy = clip.lossy_unscale(true);
        clipper.set_clip(lossy).unwrap();
        clipper.clip(&model, &mut grads).unwrap();
        let mut required = before;
        on_cpu(&mut required, &[], &lossy, &mut History::default(), no_group);
        assert_same_bits("lossy", &read(&model, &grads), &required);
    }
    // Parameters in f32 that the forward pass casts have gradients in f32: nothing is lost.
    let clipper = Clipper::new(&gpu.device, &gpu.setup, scaled).unwrap();
    let weight = model.layers[0].weight.val().cast(FloatDType::F16);
    let loss = weight.powi_scalar(2).mean().cast(FloatDType::F32) * clipper.loss_scale().unwrap();
    let mut grads = GradientsParams::from_grads(loss.backward(), &model);
    assert_eq!(read(&model, &grads)[0].dtype, DType::F32);
    clipper.clip(&model, &mut grads).unwrap();
    // The mean of 108 squares: 2/108 of each weight, in halves of at most 2^-11 each, some three deep.
    let exact = 2.0 / 108.0 * norm(&read_parameters(&model)[..1]);
    assert!((clipper.report().unwrap().norm().unwrap() / exact - 1.0).abs() < 3.0 * 2f64.powi(-11));
}

#[test]
fn an_unscale_factor_that_one_pass_refuses_is_set_in_none() {
    let Some(gpu) = gpu() else { return };
    if !gpu.device.supports_dtype(DType::F16) {
        eprintln!("skipped: the device has no f16");
        return;
    }
    let model = Mlp::new(&[12, 9, 3], &gpu.device);
    let clipper = Clipper::new(&gpu.device, &gpu.setup, Clip::global_norm(0.1)).unwrap();
    let norm_of = |clipper: &Clipper, mut grads: GradientsParams| {
        clipper.clip(&model, &mut grads).unwrap();
        clipper.report().unwrap().norm().unwrap()
    };
    let before = norm_of(&clipper, model.grads(3, 10.0, &gpu.device));
    norm_of(&clipper, with_halves(&model, &gpu.device));
    assert_lossy(&clipper.set_unscale(0.25).unwrap_err());
    assert_eq!(norm_of(&clipper, model.grads(3, 10.0, &gpu.device)), before);
    assert_eq!(clipper.report().unwrap().step, 3, "steps are counted on");
}
