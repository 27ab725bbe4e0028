//! What `prepare` refuses, and what it accepts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use common::{Random, gpu};
use gradclip::wgpu::{self, BufferUsages};
use gradclip::{
    Adam, Clip, ClipError, Clipper, ClipperOptions, DType, Grad, Placement, PlanError, PrepareError, Private,
    Skip, SparseGrad,
};

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
/// Natively wgpu answers at once, so that one poll does all that the blocking form does; and any executor may take the future.
fn polled<T>(future: impl Future<Output = T> + Send) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(made) => made,
        Poll::Pending => panic!("it waits for something"),
    }
}

#[test]
fn asynchronous_forms_make_what_the_others_make() {
    let Some(gpu) = gpu() else { return };
    let (clipper, clip) = (&gpu.clipper, Clip::global_norm(1.0));
    let [w, dw, sum] = [[1.0f32, 2.0], [3.0, 4.0], [0.0; 2]].map(|x| gpu.upload(bytemuck::cast_slice(&x)));
    let grads = [Grad::new("w", &dw).shape(&[2]).parameter(&w, 0, DType::F32).accumulator(&sum, 0)];
    let pass = polled(clipper.prepare_async(&grads, &clip)).unwrap();
    let after = polled(clipper.prepare_after_async(&pass, &grads, &clip)).unwrap();
    let step = polled(clipper.prepare_step_async(&grads, &clip, Adam::new(0.1))).unwrap();
    polled(clipper.prepare_step_after_async(&step, &grads, &clip, Adam::new(0.1))).unwrap();
    polled(clipper.prepare_accumulation_async(&grads)).unwrap();
    polled(clipper.prepare_clipped_accumulation_async(&grads, &clip)).unwrap();
    let trainer = polled(clipper.prepare_training_async(&grads, &clip, Adam::new(0.1), 1)).unwrap();
    polled(clipper.prepare_training_after_async(&trainer, &grads, &clip, Adam::new(0.1), 1)).unwrap();
    let skip = Skip::non_finite().above(20.0);
    polled(clipper.prepare_training_skipping_async(&grads, &clip, Adam::new(0.1), 2, skip)).unwrap();
    polled(clipper.prepare_private_async(&grads, &Clip::per_row_norm(1.0), Private::new(0.0, 1))).unwrap();
    polled(clipper.prepare_coalescing_async(&SparseGrad::new("e", &w, &dw, 2, [4, 1]))).unwrap();
    let tensor = Placement { buffer_size: 8, elements: 2, ..Placement::default() };
    polled(clipper.warm_up_async(&[tensor], &clip)).unwrap();

    let mut encoder = gpu.encoder();
    after.record(&mut encoder);
    let history = polled(after.save_history_async(&mut encoder)).unwrap();
    let of_step = polled(step.save_history_async(&mut encoder)).unwrap();
    trainer.record(&mut encoder);
    let saving = polled(trainer.save_async(&mut encoder)).unwrap();
    gpu.queue.submit([encoder.finish()]);
    assert_eq!(history.wait().unwrap().steps(), 1);
    assert_eq!(of_step.wait().unwrap().steps(), 0);
    polled(trainer.load_async(&gpu.queue, &saving.wait().unwrap())).unwrap();
    assert_eq!(gpu.read::<f32>(&dw, 0..8).unwrap(), [0.6, 0.8]);
}

#[test]
fn asynchronous_forms_tell_the_same_errors() {
    let Some(gpu) = gpu() else { return };
    let other = gradclip_verify::gpu::Gpu::open(&gpu.adapter).unwrap();
    let [mine, foreign] = [gpu.upload(&[0; 16]), other.upload(&[0; 16])];
    let (clipper, clip) = (&gpu.clipper, Clip::global_norm(1.0));
    for grads in [[Grad::new("w", &foreign)], [Grad::range("w", &mine, 4, 4)]] {
        let refused = polled(clipper.prepare_async(&grads, &clip)).unwrap_err();
        assert_eq!(refused, clipper.prepare(&grads, &clip).unwrap_err());
        let refused = polled(clipper.prepare_step_async(&grads, &clip, Adam::new(0.1))).unwrap_err();
        assert_eq!(refused, clipper.prepare_step(&grads, &clip, Adam::new(0.1)).unwrap_err());
    }
    // What was refused spoils nothing that comes after it.
    polled(clipper.prepare_async(&[Grad::new("w", &mine)], &clip)).unwrap();
}

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
