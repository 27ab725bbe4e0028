//! A prepared pass over many steps: thresholds, halves, two clips in one encoder, tensors larger
//! than a binding, the ring of read-backs, and memory that does not grow.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::mpsc;

use common::{Distribution, bits, contents, data, gpu};
use gradclip::cpu::{self, GradMut};
use gradclip::layout::Outcome;
use gradclip::{Clip, ClipError, ClipperOptions, Grad, ReadBackError, wgpu};

#[test]
fn unclipped_gradients_keep_every_bit() {
    let Some(gpu) = gpu() else { return };
    // Signalling NaNs and infinities too, under Skip.
    let mut tensors = vec![data(Distribution::Bits, 50_000, 1), data(Distribution::Subnormal, 777, 2)];
    for (specials, threshold) in [(false, f32::INFINITY), (true, 1.0)] {
        if specials {
            tensors[0][5] = f32::from_bits(0x7f80_0001);
            tensors[0][6] = f32::NEG_INFINITY;
        }
        let (report, after) = gpu.clip(&tensors, &Clip::global_norm(threshold));
        assert_eq!(report.segments[0].skipped, specials);
        assert!(!report.segments[0].changed);
        assert_eq!(bits(&after), bits(&tensors));
    }
}

#[test]
fn the_threshold_changes_between_steps() {
    let Some(gpu) = gpu() else { return };
    let grads = gpu.separate(&[vec![3.0, 4.0]]);
    let pass = gpu.clipper.prepare(&grads, &Clip::global_norm(10.0)).unwrap();
    assert!(!gpu.run(&pass).clipped());
    pass.set_threshold(&gpu.queue, 2.5).unwrap();
    let report = gpu.run(&pass);
    assert_eq!((report.segments[0].threshold, report.coefficient()), (2.5, Some(0.5)));
    assert_eq!(gpu.read::<f32>(grads[0].buffer()), [1.5, 2.0]);
    pass.set_unscale(&gpu.queue, 0.25).unwrap();
    assert_eq!(gpu.run(&pass).norm(), Some(0.625));
    assert_eq!(pass.set_threshold(&gpu.queue, -1.0), Err(ClipError::Threshold { given: -1.0 }));
    assert_eq!(
        pass.set_thresholds(&gpu.queue, &[1.0, 2.0]),
        Err(ClipError::Thresholds { required: 1, given: 2 })
    );
    assert!(pass.set_unscale(&gpu.queue, f32::NAN).is_err());
    assert_eq!(gpu.run(&pass).segments[0].threshold, 2.5);
}

#[test]
fn two_clips_in_one_encoder() {
    let Some(gpu) = gpu() else { return };
    let (a, b) = (gpu.separate(&[vec![3.0, 4.0]]), gpu.separate(&[vec![6.0, 8.0]]));
    let first = gpu.clipper.prepare(&a, &Clip::global_norm(1.0)).unwrap();
    let second = gpu.clipper.prepare(&b, &Clip::global_norm(5.0)).unwrap();
    // The same gradients once more, by another pass: it sees what the first left.
    let again = gpu.clipper.prepare(&a, &Clip::global_norm(0.5)).unwrap();
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    [&first, &second, &again].iter().for_each(|pass| pass.record(&mut encoder));
    let reports = [&first, &second, &again].map(|pass| pass.read_back(&mut encoder).unwrap());
    gpu.queue.submit([encoder.finish()]);
    let norms = reports.map(|r| r.wait().unwrap().norm().unwrap());
    assert_eq!(norms, [5.0, 10.0, 1.0]);
    let close = |x: f32, y: f32| (x - y).abs() <= y * 2f32.powi(-22); // two products, two coefficients
    let written = gpu.read::<f32>(a[0].buffer());
    assert!(close(written[0], 0.3) && close(written[1], 0.4), "{written:?}");
    assert_eq!(gpu.read::<f32>(b[0].buffer()), [3.0, 4.0]);
}

/// Two machines: the sums of both halves are combined between norm and apply.
#[test]
fn sums_can_be_replaced_between_the_halves() {
    let Some(gpu) = gpu() else { return };
    let (a, b) = (gpu.separate(&[vec![3.0]]), gpu.separate(&[vec![4.0]]));
    let clip = Clip::global_norm(1.0);
    let [pa, pb] = [&a, &b].map(|grads| gpu.clipper.prepare(grads, &clip).unwrap());
    let both = [a[0].clone(), b[0].clone()];
    let fused = gpu.clipper.prepare(&both, &clip).unwrap();
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    fused.record_norm(&mut encoder);
    for pass in [&pa, &pb] {
        pass.record_norm(&mut encoder);
        encoder.copy_buffer_to_buffer(fused.segment_sums(), 0, pass.segment_sums(), 0, None);
        pass.record_apply(&mut encoder);
    }
    gpu.queue.submit([encoder.finish()]);
    for (pass, want) in [(&pa, 3.0f32), (&pb, 4.0)] {
        let outcome = gpu.read::<Outcome>(pass.outcomes())[0];
        assert_eq!((outcome.norm, outcome.coefficient), (5.0, 0.2));
        let grads = if want == 3.0 { &a } else { &b };
        assert_eq!(gpu.read::<f32>(grads[0].buffer()), [want * 0.2]);
    }
}

/// GPT-2's embedding, 154 MB, under bindings of 128 MiB.
#[test]
fn a_tensor_larger_than_a_binding() {
    let Some(gpu) = gpu() else { return };
    let elements = 50_257 * 768 + 1;
    if gpu.device.limits().max_buffer_size < elements * 4 {
        panic!("{}: no buffer of {} bytes", gpu.name, elements * 4);
    }
    let mut tensors = [data(Distribution::Uniform(1e-3), elements as usize, 6)];
    let lead = 3;
    let grads = gpu.arena(&tensors, lead, 1);
    let pass = gpu.clipper.prepare(&grads, &Clip::global_norm(0.5)).unwrap();
    let windows: usize = pass.plan().dispatches.iter().map(|d| d.windows.len()).sum();
    let largest = gpu.device.limits().max_storage_buffer_binding_size;
    assert_eq!(windows > 1, largest < elements * 4, "{windows} windows of at most {largest} bytes");
    let report = gpu.run(&pass);
    let trace =
        cpu::clip_traced(&mut [GradMut::new("t0", &mut tensors[0])], &Clip::global_norm(0.5)).unwrap();
    assert_eq!(report, trace.report);
    assert!(report.clipped());
    let written = gpu.read::<f32>(grads[0].buffer());
    assert!(written[..lead].iter().chain(&written[lead + elements as usize..]).all(|x| x.is_nan()));
    assert!(written[lead..][..elements as usize] == tensors[0][..], "an element differs");
}

/// More chunks than one dimension of a dispatch has workgroups need not be large: the limit can be
/// small instead.
#[test]
fn a_grid_of_two_dimensions() {
    let Some(gpu) = gpu() else { return };
    let narrow = gpu.other(|device| device.required_limits.max_compute_workgroups_per_dimension = 7);
    let tensors: Vec<_> = (0..30).map(|i| data(Distribution::Uniform(1.0), 1 + i * 1000, i as u64)).collect();
    let grads = narrow.arena(&tensors, 0, 0);
    let clip = Clip::global_norm(1.0);
    let pass = narrow.clipper.prepare(&grads, &clip).unwrap();
    assert!(pass.plan().dispatches[0].grid[1] > 1);
    let mut copies = tensors.clone();
    let mut on_cpu: Vec<_> =
        copies.iter_mut().enumerate().map(|(i, t)| GradMut::new(format!("t{i}"), t)).collect();
    assert_eq!(narrow.run(&pass), cpu::clip(&mut on_cpu, &clip).unwrap());
}

#[test]
fn the_ring_is_bounded_and_comes_free_again() {
    let Some(gpu) = gpu() else { return };
    let grads = gpu.separate(&[vec![3.0, 4.0]]);
    let clipper = gpu.clipper_with(ClipperOptions::default().read_backs(2));
    let pass = clipper.prepare(&grads, &Clip::measure()).unwrap();
    let encoder = || gpu.device.create_command_encoder(&Default::default());
    let full = ReadBackError::RingFull { capacity: 2 };

    let mut first = encoder();
    pass.record(&mut first);
    let mut a = pass.read_back(&mut first).unwrap();
    let b = pass.read_back(&mut first).unwrap();
    assert_eq!(pass.read_back(&mut first).unwrap_err(), full);
    assert!(a.try_take().is_none());
    gpu.queue.submit([first.finish()]);
    assert_eq!(a.wait().unwrap().norm(), Some(5.0));
    // Dropped without being read: its place comes free all the same.
    drop(b);
    let mut second = encoder();
    let c = pass.read_back(&mut second).unwrap();
    let d = pass.read_back(&mut second).unwrap();
    // Dropped while the GPU still has it.
    drop(c);
    assert_eq!(pass.read_back(&mut second).unwrap_err(), full);
    gpu.queue.submit([second.finish()]);
    gpu.device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
    assert_eq!(pollster::block_on(d).unwrap().norm(), Some(5.0));

    // An encoder that is never submitted.
    let mut third = encoder();
    let e = pass.read_back(&mut third).unwrap();
    let f = pass.read_back(&mut third).unwrap();
    assert_eq!(f.wait().unwrap_err(), ReadBackError::NotSubmitted);
    drop(third);
    assert_eq!(pollster::block_on(e).unwrap_err(), ReadBackError::NotSubmitted);
    assert_eq!(gpu.run(&pass).norm(), Some(5.0));
}

/// Another thread that polls may hold the callback of a result that has arrived: it is waited for.
#[test]
fn a_wait_outlasts_a_callback_in_other_hands() {
    let Some(gpu) = gpu() else { return };
    let pass = gpu.clipper.prepare(&gpu.separate(&[vec![3.0, 4.0]]), &Clip::measure()).unwrap();
    let other = gpu.device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 4,
        usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
        mapped_at_creation: false,
    });
    let ((enter, entered), (release, released)) = (mpsc::channel(), mpsc::channel::<()>());
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    // Callbacks are called in this order, so this one keeps that of the report back.
    encoder.map_buffer_on_submit(&other, wgpu::MapMode::Read, .., move |_| {
        enter.send(()).unwrap();
        released.recv().unwrap();
    });
    pass.record(&mut encoder);
    let report = pass.read_back(&mut encoder).unwrap();
    gpu.queue.submit([encoder.finish()]);
    std::thread::scope(|threads| {
        threads.spawn(|| gpu.device.poll(wgpu::PollType::wait_indefinitely()).unwrap());
        entered.recv().unwrap();
        threads.spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(100));
            release.send(()).unwrap();
        });
        assert_eq!(report.wait().unwrap().norm(), Some(5.0));
    });
}

/// A thousand steps; buffers live and bytes held by the process stay where they are after the
/// first hundred.
#[test]
fn a_thousand_steps_without_growth() {
    let Some(gpu) = gpu() else { return };
    let tensors: Vec<_> = (0..20).map(|i| data(Distribution::Uniform(1.0), 500 + i * 31, i as u64)).collect();
    let grads: Vec<Grad> = gpu.separate(&tensors);
    let pass = gpu.clipper.prepare(&grads, &Clip::global_norm(f32::INFINITY)).unwrap();
    let norm = gpu.run(&pass).norm();
    let mut settled = 0;
    let mut late = std::collections::VecDeque::new();
    for step in 0..1000 {
        pass.set_threshold(&gpu.queue, 1e6 + step as f32).unwrap();
        gpu.submit(|encoder| {
            pass.record(encoder);
            late.extend(pass.read_back(encoder));
        });
        gpu.device.poll(wgpu::PollType::Poll).unwrap();
        if late.len() == 3 || step == 999 {
            let report = late.pop_front().unwrap().wait().unwrap();
            assert_eq!(report.norm(), norm);
        }
        if step == 100 {
            settled = resident_bytes();
        }
    }
    let grown = resident_bytes().saturating_sub(settled);
    // 900 steps that leaked one 4 KiB page each would show.
    assert!(grown < 3 << 20, "{grown} bytes more after 900 steps");
    assert_eq!(bits(&contents(&gpu, &grads, &tensors)), bits(&tensors));
}

/// Resident memory of this process; 0 where /proc is not.
fn resident_bytes() -> usize {
    let Ok(text) = std::fs::read_to_string("/proc/self/statm") else { return 0 };
    text.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}
