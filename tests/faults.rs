//! What callers, drivers and devices can do wrong ends in an error value or the right answer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Distribution, Gpu, data, gpu};
use gradclip::cpu::{self, GradMut};
use gradclip::{Clip, ClipperOptions, PrepareError, ReadBackError, wgpu};

/// Runs `work` and returns the validation error that wgpu raised aside, if any.
fn raised(gpu: &Gpu, work: impl FnOnce()) -> Option<wgpu::Error> {
    let scope = gpu.device.push_error_scope(wgpu::ErrorFilter::Validation);
    work();
    pollster::block_on(scope.pop())
}

#[test]
fn a_buffer_destroyed_between_prepare_and_submit() {
    let Some(gpu) = gpu() else { return };
    let kept = gpu.separate(&[vec![3.0], vec![4.0]]);
    let pass =
        gpu.clipper_with(ClipperOptions::default().read_backs(1)).prepare(&kept, &Clip::measure()).unwrap();
    // The ring's only place holds an old result now: it must not be taken for a new one.
    assert_eq!(gpu.run(&pass).norm(), Some(5.0));
    kept[1].buffer().destroy();
    for _ in 0..3 {
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        let mut report = None;
        let error = raised(&gpu, || {
            pass.record(&mut encoder);
            report = Some(pass.read_back(&mut encoder).unwrap());
            gpu.queue.submit([encoder.finish()]);
        });
        assert!(error.is_some());
        assert_eq!(report.unwrap().wait().unwrap_err(), ReadBackError::NotSubmitted);
    }
    let e = gpu.clipper.prepare(&kept, &Clip::measure());
    // Binding a destroyed buffer is an error in wgpu at once or at submit; never a panic.
    assert!(matches!(e, Ok(_) | Err(PrepareError::Device(_))));
}

#[test]
fn a_device_that_is_destroyed() {
    let Some(gpu) = gpu() else { return };
    let lost = gpu.other(|_| {});
    let grads = lost.separate(&[vec![3.0, 4.0]]);
    let pass = lost.clipper.prepare(&grads, &Clip::measure()).unwrap();
    assert_eq!(lost.run(&pass).norm(), Some(5.0));
    lost.device.destroy();
    let mut encoder = lost.device.create_command_encoder(&Default::default());
    pass.record(&mut encoder);
    let report = pass.read_back(&mut encoder).unwrap();
    lost.queue.submit([encoder.finish()]);
    assert!(report.wait().is_err());
    // wgpu raises nothing for a lost device, so that the pass may seem to be there; it then
    // delivers no result.
    if let Ok(pass) = lost.clipper.prepare(&grads, &Clip::measure()) {
        let mut encoder = lost.device.create_command_encoder(&Default::default());
        pass.record(&mut encoder);
        let report = pass.read_back(&mut encoder).unwrap();
        lost.queue.submit([encoder.finish()]);
        assert!(report.wait().is_err());
    }
}

#[test]
fn a_shader_that_the_device_cannot_take() {
    let Some(gpu) = gpu() else { return };
    let small = gpu.other(|device| device.required_limits.max_bindings_per_bind_group = 2);
    let grads = small.separate(&[vec![1.0]]);
    let e = small.clipper.prepare(&grads, &Clip::measure()).unwrap_err();
    assert!(
        matches!(&e, PrepareError::Device(error) if error.what() == "preparing buffers and bind groups"),
        "{e}"
    );
    // What wgpu said is the source, as wgpu's own type.
    let source = std::error::Error::source(&e).expect("a source");
    assert!(matches!(source.downcast_ref(), Some(wgpu::Error::Validation { .. })), "{source:?}");
    // The device and the clipper live on.
    assert!(small.clipper.prepare(&grads, &Clip::measure()).is_err());
}

#[test]
fn scratch_larger_than_any_buffer() {
    let Some(gpu) = gpu() else { return };
    let small = gpu.other(|device| device.required_limits.max_buffer_size = 1 << 17);
    let tensors = vec![vec![1.0]; 20_000];
    let e = small.clipper.prepare(&small.arena(&tensors, 0, 0), &Clip::measure()).unwrap_err();
    assert!(matches!(e, PrepareError::Device(_)), "{e}");
    let grads = small.arena(&tensors[..500], 0, 0);
    assert_eq!(
        small.run(&small.clipper.prepare(&grads, &Clip::measure()).unwrap()).norm(),
        Some(f64::from(500f32.sqrt()))
    );
}

#[test]
fn ten_thousand_tensors() {
    let Some(gpu) = gpu() else { return };
    let mut tensors: Vec<_> =
        (0..10_000).map(|i| data(Distribution::Uniform(1.0), i % 7, i as u64)).collect();
    let clip = Clip::global_norm(1.0);
    for grads in [gpu.arena(&tensors, 1, 0), gpu.separate(&tensors)] {
        let pass = gpu.clipper.prepare(&grads, &clip).unwrap();
        let report = gpu.run(&pass);
        let mut copies = tensors.clone();
        let mut on_cpu: Vec<_> =
            copies.iter_mut().enumerate().map(|(i, t)| GradMut::new(format!("t{i}"), t)).collect();
        assert_eq!(report, cpu::clip(&mut on_cpu, &clip).unwrap());
    }
    tensors.clear();
}

/// Untouched pages of zeros, one element more than a buffer may have.
#[test]
fn a_tensor_too_large_for_a_buffer_of_the_session() {
    let Some(gpu) = gpu() else { return };
    let most = gpu.adapter.limits().max_buffer_size;
    if most > 4 << 30 || available_bytes() < 2 * most {
        return;
    }
    let mut large = vec![0.0f32; (most / 4 + 1) as usize];
    let session = gradclip::Session::open(&gradclip::Target::Named(gpu.name.clone())).unwrap();
    let e = session.clip(&mut [GradMut::new("embedding", &mut large)], &Clip::measure()).unwrap_err();
    assert!(e.to_string().starts_with("tensor `embedding`: required a buffer of"), "{e}");
}

/// More than 2^32 bytes in one buffer, where the adapter and the machine have that: offsets past
/// 32 bits count. Elsewhere tests/plan.rs has the plan.
#[test]
fn offsets_past_32_bits() {
    let Some(gpu) = gpu() else { return };
    let size = (1u64 << 32) + (1 << 20);
    let best = gpu.adapter.limits();
    if best.max_buffer_size < size || available_bytes() < 3 * size {
        eprintln!(
            "{}: buffers of at most {} bytes, {} available",
            gpu.name,
            best.max_buffer_size,
            available_bytes()
        );
        return;
    }
    let large = gpu.other(|device| {
        device.required_limits.max_buffer_size = size;
        device.required_limits.max_storage_buffer_binding_size = best.max_storage_buffer_binding_size;
    });
    let scope = large.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
    let buffer = large.device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size,
        usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    if pollster::block_on(scope.pop()).is_some() {
        return;
    }
    large.queue.write_buffer(&buffer, size - 8, bytemuck::bytes_of(&[3.0f32, 4.0]));
    let grads = [
        gradclip::Grad::range("zeros", &buffer, 4, 1000),
        gradclip::Grad::range("far", &buffer, size - 40_000, 10_000),
    ];
    let report = large.run(&large.clipper.prepare(&grads, &Clip::global_norm(1.0)).unwrap());
    assert_eq!((report.norm(), report.tensors[0].norm, report.tensors[1].norm), (Some(5.0), 0.0, 5.0));
}

/// Memory that could be had, 0 where /proc is not.
fn available_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024
}
