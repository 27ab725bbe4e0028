//! What `prepare` refuses, and what it accepts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Random, gpu};
use gradclip::wgpu::{self, BufferUsages};
use gradclip::{Clip, ClipError, Clipper, ClipperOptions, Grad, PlanError, PrepareError};

fn error(clipper: &Clipper, grads: &[Grad], clip: Clip) -> PrepareError {
    clipper.prepare(grads, &clip).expect_err("an error")
}

#[test]
fn bad_settings() {
    let Some(gpu) = gpu() else { return };
    let refused = |clip: Clip| error(&gpu.clipper, &[], clip);
    assert_eq!(refused(Clip::global_norm(-1.0)), ClipError::Threshold { given: -1.0 }.into());
    assert!(matches!(refused(Clip::global_norm(f32::NAN)), PrepareError::Clip(ClipError::Threshold { .. })));
    assert_eq!(refused(Clip::measure().unscale(0.0)), ClipError::Unscale { given: 0.0 }.into());
    assert_eq!(refused(Clip::measure().eps(-1e-6)), ClipError::Eps { given: -1e-6 }.into());
    assert_eq!(
        refused(Clip::global_norm(-1.0)).to_string(),
        "threshold: required 0 or more (infinity only measures), given -1"
    );
}

#[test]
fn bad_ranges_name_the_tensor() {
    let Some(gpu) = gpu() else { return };
    let buffer = gpu.upload(&[0; 4096]);
    let clip = Clip::global_norm(1.0);
    let e = error(&gpu.clipper, &[Grad::range("w", &buffer, 4000, 25)], clip);
    assert_eq!(e.to_string(), "tensor `w`: required a buffer of at least 4100 bytes, given one of 4096");
    let e = error(&gpu.clipper, &[Grad::range("w", &buffer, u64::MAX - 3, u64::MAX)], clip);
    assert!(matches!(e, PrepareError::Plan(PlanError::OutOfRange { .. })), "{e}");
    let e = error(&gpu.clipper, &[Grad::range("w", &buffer, 6, 25)], clip);
    assert_eq!(e.to_string(), "tensor `w`: required an offset that is a multiple of 4 (f32), given 6");
    let two = [Grad::range("a", &buffer, 0, 100), Grad::range("b", &buffer, 396, 100)];
    let e = error(&gpu.clipper, &two, clip);
    assert_eq!(
        e.to_string(),
        "tensors `a` and `b`: required disjoint ranges, both hold byte 396 of the buffer"
    );
    // One tensor inside another, given in the other order, and the same buffer twice.
    let two = [Grad::range("in", &buffer, 40, 2), Grad::new("out", &buffer)];
    assert!(error(&gpu.clipper, &two, clip).to_string().starts_with("tensors `out` and `in`"));
    let two = [Grad::new("a", &buffer), Grad::new("a", &buffer)];
    assert!(matches!(error(&gpu.clipper, &two, clip), PrepareError::Plan(PlanError::Overlap { at: 0, .. })));
    // Touching is fine.
    let two = [Grad::range("a", &buffer, 0, 100), Grad::range("b", &buffer, 400, 100)];
    gpu.clipper.prepare(&two, &clip).unwrap();
}

#[test]
fn missing_usage_names_the_tensor() {
    let Some(gpu) = gpu() else { return };
    let descriptor = wgpu::BufferDescriptor {
        label: None,
        size: 64,
        usage: BufferUsages::COPY_DST,
        mapped_at_creation: false,
    };
    let buffer = gpu.device.create_buffer(&descriptor);
    let e = error(&gpu.clipper, &[Grad::new("w", &buffer)], Clip::measure());
    assert_eq!(
        e.to_string(),
        "tensor `w`: required a buffer with usage STORAGE, given BufferUsages(COPY_DST)"
    );
    // Without elements it is never bound.
    gpu.clipper.prepare(&[Grad::range("w", &buffer, 0, 0)], &Clip::measure()).unwrap();
}

#[test]
fn limits_that_are_too_small() {
    let Some(gpu) = gpu() else { return };
    for workgroup_size in [0, 16, 48, 512] {
        let options = ClipperOptions::default().workgroup_size(workgroup_size);
        assert!(Clipper::with_options(&gpu.device, options).is_err(), "{workgroup_size}");
    }
    let limits = wgpu::Limits { max_storage_buffers_per_shader_stage: 2, ..wgpu::Limits::default() };
    let e = gradclip::plan::PlanLimits::new(&limits, 256).unwrap_err();
    assert_eq!(
        e.to_string(),
        "device limit max_storage_buffers_per_shader_stage: required at least 6, given 2"
    );
}

#[test]
fn nothing_at_all_has_norm_zero() {
    let Some(gpu) = gpu() else { return };
    for clip in [Clip::global_norm(1.0), Clip::per_tensor_norm(1.0)] {
        let report = gpu.run(&gpu.clipper.prepare(&[], &clip).unwrap());
        assert!(report.tensors.is_empty() && !report.clipped());
    }
    let report = gpu.run(&gpu.clipper.prepare(&[], &Clip::global_norm(0.0)).unwrap());
    assert_eq!((report.norm(), report.coefficient()), (Some(0.0), Some(1.0)));
    let empty = gpu.separate(&[vec![], vec![]]);
    let report = gpu.run(&gpu.clipper.prepare(&empty, &Clip::global_norm(0.0)).unwrap());
    assert_eq!(report.norm(), Some(0.0));
    assert_eq!(report.tensors.len(), 2);
}

/// A buffer of another device is an error value, not a panic.
#[test]
fn a_buffer_of_another_device() {
    let Some(gpu) = gpu() else { return };
    let (other, _) = pollster::block_on(gpu.adapter.request_device(&Default::default())).unwrap();
    let foreign = other.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 64,
        usage: BufferUsages::STORAGE,
        mapped_at_creation: false,
    });
    let e = error(&gpu.clipper, &[Grad::new("w", &foreign)], Clip::measure());
    assert!(matches!(e, PrepareError::Device(_)), "{e}");
}

/// Random ranges of one buffer are refused exactly when they overlap.
#[test]
fn overlaps_are_found_whatever_the_order() {
    let Some(gpu) = gpu() else { return };
    let buffer = gpu.upload(&[0; 4000]);
    let mut random = Random(8);
    for _ in 0..300 {
        let ranges: Vec<(u64, u64)> = (0..5).map(|_| (random.bits() % 900, random.bits() % 100)).collect();
        let overlap = (0..5).any(|i| {
            (0..i).any(|j| {
                let ((a, m), (b, n)) = (ranges[i], ranges[j]);
                m > 0 && n > 0 && a < b + n && b < a + m
            })
        });
        let grads: Vec<_> = ranges.iter().map(|&(o, n)| Grad::range("w", &buffer, o * 4, n)).collect();
        assert_eq!(gpu.clipper.prepare(&grads, &Clip::measure()).is_err(), overlap, "{ranges:?}");
    }
}
