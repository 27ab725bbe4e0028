//! Tensors that are not on wgpu: clear errors, and gradients as they were.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// Its successor Flex takes minutes to build.
#![allow(deprecated)]

mod common;

use burn::tensor::{Device, Tensor};
use gradclip::Clip;
use gradclip_burn::{Clipper, Error};

use common::{Mlp, assert_same_bits, gpu, read};

#[test]
fn a_device_that_is_not_wgpu_is_refused() {
    let Some(gpu) = gpu() else { return };
    let error = Clipper::new(&Device::ndarray(), &gpu.setup, Clip::global_norm(1.0)).unwrap_err();
    assert!(matches!(error, Error::NotWgpu { .. }), "{error}");
    assert!(error.to_string().to_lowercase().contains("ndarray"), "{error}");
}

#[test]
fn a_gradient_elsewhere_is_named_and_none_is_changed() {
    let Some(gpu) = gpu() else { return };
    let model = Mlp::new(&[12, 9, 3], &gpu.device);
    let clipper = Clipper::new(&gpu.device, &gpu.setup, Clip::global_norm(1e-3)).unwrap();
    let mut grads = model.grads(3, 1e3, &gpu.device);
    let id = model.layers[1].weight.id;
    let gradient = grads.remove::<2>(id).unwrap();
    grads.register(id, Tensor::<2>::from_data(gradient.clone().into_data(), &Device::ndarray()));
    let before = read(&model, &grads);
    let error = clipper.clip(&model, &mut grads).unwrap_err();
    assert!(matches!(&error, Error::Device { parameter, .. } if parameter == "layers.1.weight"), "{error}");
    assert!(error.to_string().to_lowercase().contains("ndarray"), "{error}");
    assert_eq!(grads.len(), 4);
    assert_same_bits("after an error", &read(&model, &grads), &before);
    // The clipper goes on.
    grads.register(id, gradient);
    clipper.clip(&model, &mut grads).unwrap();
    assert_eq!(clipper.report().unwrap().step, 1);
}

#[test]
fn a_model_elsewhere_is_refused_whatever_its_gradients() {
    let Some(gpu) = gpu() else { return };
    let device = Device::ndarray().autodiff();
    let model = Mlp::new(&[4, 3], &device);
    let clipper = Clipper::new(&gpu.device, &gpu.setup, Clip::global_norm(1e-3)).unwrap();
    let mut grads = model.grads(3, 1e3, &device);
    let before = read(&model, &grads);
    assert!(matches!(clipper.clip(&model, &mut grads), Err(Error::Device { .. })));
    assert_same_bits("after an error", &read(&model, &grads), &before);
}
