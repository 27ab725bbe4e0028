//! A device of one's own, handed to Burn.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use burn::tensor::Device;
use burn::tensor::wgpu::WgpuSetup;
use gradclip::{Clip, History, wgpu};
use gradclip_burn::Clipper;

use common::{Mlp, assert_same_bits, on_cpu, read};

fn own_setup() -> Option<WgpuSetup> {
    let backend = wgpu::Backend::Vulkan;
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: backend.into(),
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let adapter =
        pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default())).ok()?;
    // What Burn's kernels need, 64-bit integers on lavapipe for one, nobody lists: all but what is experimental.
    let unwanted = wgpu::Features::all_experimental_mask() | wgpu::Features::MAPPABLE_PRIMARY_BUFFERS;
    let descriptor = wgpu::DeviceDescriptor {
        required_features: adapter.features() - unwanted,
        required_limits: adapter.limits(),
        ..Default::default()
    };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).unwrap();
    Some(WgpuSetup { instance, adapter, device, queue, backend })
}

#[test]
fn gradients_on_a_device_of_ones_own_are_clipped() {
    let Some(setup) = own_setup() else {
        assert!(std::env::var("GRADCLIP_REQUIRE_GPU").is_err(), "no Vulkan adapter");
        return;
    };
    let device = Device::wgpu_options().setup(setup.clone()).init().unwrap().autodiff();
    let clip = Clip::global_norm(0.1);
    let clipper = Clipper::new(&device, &setup, clip).unwrap();
    let model = Mlp::new(&[12, 33, 20, 3], &device);
    for step in 0..3 {
        let mut grads = model.grads(step, 1e3, &device);
        let mut required = read(&model, &grads);
        on_cpu(&mut required, &[], &clip, &mut History::default(), |_| None);
        clipper.clip(&model, &mut grads).unwrap();
        assert_same_bits("an imported device", &read(&model, &grads), &required);
    }
}
