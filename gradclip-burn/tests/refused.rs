//! What is refused, and that gradients are then as they were.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use burn::optim::GradientsParams;
use burn::tensor::{Device, DeviceKind, FloatDType, Tensor};
use gradclip::{Clip, Units};
use gradclip_burn::{Clipper, Error};

use common::{Mlp, Pair, assert_same_bits, gpu, read, tensor};

#[test]
fn a_clip_that_makes_no_sense_is_refused_at_once() {
    let Some(gpu) = gpu() else { return };
    let error = Clipper::new(&gpu.device, &gpu.setup, Clip::global_norm(-1.0)).unwrap_err();
    assert!(matches!(error, Error::Clip(_)), "{error}");
    // Units need another number of axes than the vector has: known when the gradients are.
    let clip = Clip::per_unit_norm(1.0, Units::over(&[3]));
    let mut clipper = Clipper::new(&gpu.device, &gpu.setup, clip).unwrap();
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
    let mut clipper = Clipper::new(&gpu.device, &gpu.setup, Clip::agc(0.01, Units::OutputFirst)).unwrap();
    let mut grads = GradientsParams::new();
    grads.register(model.matrix.id, tensor::<2>(1, [5, 6], 1.0, &device));
    let error = clipper.clip(&model, &mut grads).unwrap_err();
    let Error::Shape { parameter, required, given } = error else { panic!("{error}") };
    assert_eq!((parameter.as_str(), required, given), ("matrix", vec![6, 5], vec![5, 6]));
    assert_eq!(grads.len(), 1);
    if device.supports_dtype(burn::tensor::DType::F64) {
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
    let mut clipper = Clipper::new(&gpu.device, &gpu.setup, Clip::global_norm(1e-3)).unwrap();
    let mut grads = model.grads(3, 1e3, &gpu.device);
    let id = model.layers[1].weight.id;
    let gradient = grads.remove::<2>(id).unwrap();
    grads.register(id, Tensor::<2>::from_data(gradient.into_data(), &other));
    let before = read(&model, &grads);
    let error = clipper.clip(&model, &mut grads).unwrap_err();
    assert!(matches!(&error, Error::Device { parameter, .. } if parameter == "layers.1.weight"), "{error}");
    assert_same_bits("after an error", &read(&model, &grads), &before);
}
