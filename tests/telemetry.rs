//! Telemetry, Trainer, and the calls to wgpu that clipping makes in 500 steps, read from wgpu's own trace.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::cell::Cell;

use common::{Held, gpu};
use gradclip::{
    Adam, Adapt, Clip, Clipper, ClipperOptions, DType, GiveUp, Grad, LossScale, Pass, Private, ReadBackError,
    Schedule, Skip, SparseGrad, Telemetry, Trainer, wgpu,
};

const STEPS: u32 = 500;

fn step(gpu: &Held, grads: &[Grad], pass: &Pass, telemetry: &mut Telemetry, norm: f32) {
    gpu.queue.write_buffer(grads[0].buffer(), 0, bytemuck::cast_slice(&[norm, 0.0]));
    gpu.submit(|encoder| {
        pass.record(encoder);
        telemetry.record(pass, encoder);
    });
}

#[test]
fn every_step_arrives_in_order() {
    let Some(gpu) = gpu() else { return };
    let grads = gpu.separate(&[vec![0.0, 0.0], vec![0.0]]);
    let pass = gpu.clipper.prepare(&grads, &Clip::global_norm(10.0)).unwrap();
    let mut telemetry = Telemetry::default();
    let mut seen = 0;
    let mut clipped = 0;
    let mut check = |report: gradclip::Report| {
        seen += 1;
        assert_eq!(report.step, seen);
        let norm = f64::from(seen as f32);
        clipped += u64::from(norm > 10.0);
        assert_eq!((report.norm(), report.clipped()), (Some(norm), norm > 10.0));
        assert_eq!(report.clipped_steps, clipped);
        assert!((report.clipped_share() - clipped as f64 / seen as f64).abs() < 1e-12);
        assert_eq!(report.tensors[0].norm, norm);
        assert_eq!(report.segments[0].threshold, 10.0);
    };
    for i in 1..=40 {
        step(&gpu, &grads, &pass, &mut telemetry, i as f32);
        gpu.device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
        while let Some(report) = telemetry.poll() {
            check(report.unwrap());
        }
    }
    assert_eq!((seen, telemetry.dropped(), telemetry.is_empty()), (40, 0, true));
}

#[test]
fn a_full_ring_drops_the_newest_and_counts() {
    let Some(gpu) = gpu() else { return };
    let clipper = gpu.clipper_with(ClipperOptions::default().read_backs(4));
    let grads = gpu.separate(&[vec![0.0, 0.0]]);
    let pass = clipper.prepare(&grads, &Clip::global_norm(2.0)).unwrap();
    let mut telemetry = Telemetry::default();
    for i in 1..=10 {
        step(&gpu, &grads, &pass, &mut telemetry, i as f32);
    }
    assert_eq!((telemetry.len(), telemetry.dropped()), (4, 6));
    gpu.device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
    // As a stream this time; it ends when nothing is on its way.
    let next = |telemetry: &mut Telemetry| {
        pollster::block_on(std::future::poll_fn(|context| {
            futures_core::Stream::poll_next(std::pin::Pin::new(&mut *telemetry), context)
        }))
    };
    for i in 1..=4 {
        assert_eq!(next(&mut telemetry).unwrap().unwrap().step, i);
    }
    assert!(next(&mut telemetry).is_none());
    // Steps whose report was dropped are counted all the same.
    step(&gpu, &grads, &pass, &mut telemetry, 1.0);
    gpu.device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
    let report = next(&mut telemetry).unwrap().unwrap();
    assert_eq!((report.step, report.clipped_steps), (11, 8));
    assert_eq!(telemetry.dropped(), 6);
    // An encoder that is never submitted.
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    telemetry.record(&pass, &mut encoder);
    drop(encoder);
    assert_eq!(telemetry.poll(), Some(Err(ReadBackError::NotSubmitted)));
    assert!(telemetry.is_empty());
}

#[test]
fn non_finite_steps_are_told() {
    let Some(gpu) = gpu() else { return };
    let grads = gpu.separate(&[vec![0.0, 0.0]]);
    let pass = gpu.clipper.prepare(&grads, &Clip::global_norm(1.0).adapt(Adapt::zclip())).unwrap();
    let mut telemetry = Telemetry::default();
    for (i, norm) in [1.0, f32::NAN, 1.0].into_iter().enumerate() {
        step(&gpu, &grads, &pass, &mut telemetry, norm);
        gpu.device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
        let report = telemetry.poll().unwrap().unwrap();
        assert_eq!(report.non_finite(), u64::from(norm.is_nan()));
        assert_eq!(report.segments[0].skipped, norm.is_nan());
        assert_eq!(report.skipped_steps, u64::from(i >= 1));
    }
}

/// wgpu's own record of every call that reaches it. Between the two marks lie 500 steps.
fn traced(prepare_and_run: impl FnOnce(&wgpu::Device, &wgpu::Queue, &dyn Fn(&str))) -> Option<String> {
    let gpu = gpu()?;
    let folder = tempfile::tempdir().unwrap();
    let descriptor = wgpu::DeviceDescriptor {
        required_limits: Clipper::recommended_limits(&gpu.adapter),
        trace: wgpu::Trace::Directory(folder.path().to_owned()),
        ..Default::default()
    };
    let (device, queue) = pollster::block_on(gpu.adapter.request_device(&descriptor)).unwrap();
    let mark = |label: &str| {
        drop(device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: 4,
            usage: wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        }));
    };
    prepare_and_run(&device, &queue, &mark);
    device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
    drop((device, queue));
    let trace = std::fs::read_to_string(folder.path().join("trace.ron")).unwrap();
    let begin = trace.find("steps begin").expect("the first mark");
    let end = trace.find("steps end").expect("the second mark");
    Some(trace[begin..end].to_owned())
}

/// That the submits of 500 steps are the caller's own, with so many dispatches, copies and writes, and that nothing is made or cleared but the mark.
fn assert_calls(trace: &str, calls: [usize; 3]) {
    assert_calls_with_clears(trace, calls, 0);
}

/// The same where buffers are cleared.
fn assert_calls_with_clears(trace: &str, [dispatches, copies, writes]: [usize; 3], clears: usize) {
    let count = |call: &str| trace.matches(call).count();
    assert_eq!(count("Submit("), STEPS as usize, "submits are the caller's own");
    assert_eq!(count("Dispatch"), dispatches);
    for (call, times) in [
        ("CopyBufferToBuffer", copies),
        ("WriteBuffer", writes),
        ("CreateBuffer(", 1),
        ("CreateBindGroup(", 0),
        ("ClearBuffer", clears),
    ] {
        assert_eq!(count(call), times, "{call} in 500 steps");
    }
}

fn gradients(device: &wgpu::Device) -> Vec<Grad> {
    (0..20)
        .map(|i| {
            let buffer = device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("gradient"),
                size: 400,
                usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            });
            Grad::new(format!("g{i}"), &buffer)
        })
        .collect()
}

fn steps(device: &wgpu::Device, queue: &wgpu::Queue, mut record: impl FnMut(&mut wgpu::CommandEncoder)) {
    for _ in 0..STEPS {
        let mut encoder = device.create_command_encoder(&Default::default());
        record(&mut encoder);
        queue.submit([encoder.finish()]);
    }
}

/// Data reaches the host only through a buffer that can be mapped, and such a buffer cannot be bound as
/// storage: without a copy there is no read-back.
#[test]
fn five_hundred_adaptive_steps_read_nothing_back() {
    for adapt in [Adapt::zclip(), Adapt::autoclip(10.0), Adapt::Mean { factor: 1.0, window: 9 }] {
        let dispatches = Cell::new(0);
        let trace = traced(|device, queue, mark| {
            let clipper = Clipper::new(device).unwrap();
            let pass = clipper.prepare(&gradients(device), &Clip::global_norm(1.0).adapt(adapt)).unwrap();
            dispatches.set(pass.dispatch_count());
            mark("steps begin");
            steps(device, queue, |encoder| pass.record(encoder));
            mark("steps end");
        });
        let Some(trace) = trace else { return };
        assert_eq!(trace.matches("RunComputePass").count(), STEPS as usize);
        assert_calls(&trace, [STEPS as usize * dispatches.get(), 0, 0]);
    }
}

/// A rule that leaves out steps watches a loss that never leaves the device: one copy a step, the caller's own, from where the loss lies.
#[test]
fn spikes_are_left_out_without_a_read_back() {
    let dispatches = Cell::new(0);
    let trace = traced(|device, queue, mark| {
        let clipper = Clipper::new(device).unwrap();
        let skip = Skip::z_score(6.0).with_loss().above(1e4).max_consecutive(5, GiveUp::LetThrough);
        let pairs = gradients(device).into_iter().zip(gradients(device));
        let grads: Vec<Grad> = pairs.map(|(g, p)| g.parameter(p.buffer(), 0, DType::F32)).collect();
        let clip = Clip::global_norm(1.0).skip(skip).adapt(Adapt::zclip()).at_most(10.0);
        let stepper = clipper.prepare_step(&grads, &clip, Adam::adamw(1e-3)).unwrap();
        let loss = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("loss"),
            size: 4,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        dispatches.set(stepper.dispatch_count());
        mark("steps begin");
        steps(device, queue, |encoder| {
            encoder.copy_buffer_to_buffer(&loss, 0, stepper.inputs(), 0, 4);
            stepper.record_step(encoder);
        });
        mark("steps end");
    });
    let Some(trace) = trace else { return };
    assert_calls(&trace, [STEPS as usize * dispatches.get(), STEPS as usize, 0]);
}

/// Four micro-batches, their sum, loss scaling and AdamW: nothing but dispatches, and the one write that
/// sets the learning rate.
#[test]
fn a_whole_training_step_reads_nothing_back() {
    let dispatches = Cell::new(0);
    let trace = traced(|device, queue, mark| {
        let clipper = Clipper::new(device).unwrap();
        let sums = gradients(device);
        let pairs = gradients(device).into_iter().zip(&sums);
        let micro: Vec<Grad> = pairs.map(|(g, sum)| g.accumulator(sum.buffer(), 0)).collect();
        let accumulator = clipper.prepare_accumulation(&micro).unwrap();
        let pairs = sums.into_iter().zip(gradients(device));
        let sums: Vec<Grad> = pairs.map(|(sum, p)| sum.parameter(p.buffer(), 0, DType::F32)).collect();
        let clip = Clip::global_norm(1.0).unscale(0.25).loss_scale(LossScale::default());
        let stepper = clipper.prepare_step(&sums, &clip, Adam::adamw(1e-3)).unwrap();
        dispatches.set(4 * accumulator.dispatch_count() + stepper.dispatch_count());
        let schedule = Schedule::inverse_sqrt(1e-3).unwrap().warm_up(10);
        let mut rates = schedule.iter();
        mark("steps begin");
        steps(device, queue, |encoder| {
            stepper.set_lr(queue, rates.next().unwrap()).unwrap();
            accumulator.record_first(encoder);
            (0..3).for_each(|_| accumulator.record_next(encoder));
            stepper.record_step(encoder);
        });
        mark("steps end");
    });
    let Some(trace) = trace else { return };
    assert_calls(&trace, [STEPS as usize * dispatches.get(), 0, STEPS as usize]);
}

/// The trainer does the same, with masters: a shorter step, every tenth, copies a word before and one after it.
#[test]
fn a_trainer_copies_two_words_a_shorter_step() {
    let dispatches = Cell::new(0);
    let trace = traced(|device, queue, mark| {
        let clipper = Clipper::new(device).unwrap();
        let pairs = gradients(device).into_iter().zip(gradients(device));
        let grads: Vec<Grad> = pairs.map(|(g, p)| g.parameter(p.buffer(), 0, DType::Bf16)).collect();
        let clip = Clip::global_norm(1.0).loss_scale(LossScale::default());
        let trainer = clipper.prepare_training(&grads, &clip, Adam::adamw(1e-3), 4).unwrap();
        let sums = clipper.prepare_accumulation(&accumulating(&trainer)).unwrap();
        let shorter = STEPS as usize / 10;
        let sums = (4 * STEPS as usize - shorter) * sums.dispatch_count();
        dispatches.set(sums + STEPS as usize * trainer.stepper().dispatch_count());
        let mut step = 0;
        mark("steps begin");
        steps(device, queue, |encoder| {
            (0..3).for_each(|_| assert!(!trainer.record(encoder)));
            assert!(if step % 10 == 9 { trainer.finish(encoder) } else { trainer.record(encoder) });
            step += 1;
        });
        mark("steps end");
    });
    let Some(trace) = trace else { return };
    assert_calls(&trace, [dispatches.get(), 2 * STEPS as usize / 10, 0]);
}

/// A sum over clipped examples with noise, and a step on it that limits updates.
#[test]
fn private_sums_and_limited_steps_read_nothing_back() {
    let dispatches = Cell::new(0);
    let trace = traced(|device, queue, mark| {
        let clipper = Clipper::new(device).unwrap();
        let released = gradients(device);
        let pairs = gradients(device).into_iter().zip(&released);
        let examples: Vec<Grad> =
            pairs.map(|(g, to)| g.shape(&[4, 25]).accumulator(to.buffer(), 0)).collect();
        let private = Private::new(1.0, 7);
        let sum = clipper.prepare_private(&examples, &Clip::per_row_norm(1.0), private).unwrap();
        let pairs = released.iter().zip(gradients(device));
        let steps_on = |(to, p): (&Grad, Grad)| {
            Grad::range(to.name(), to.buffer(), 0, 25).parameter(p.buffer(), 0, DType::F32)
        };
        let grads: Vec<Grad> = pairs.map(steps_on).collect();
        let stepper = clipper.prepare_step(&grads, &Clip::measure(), Adam::lamb(1e-3)).unwrap();
        dispatches.set(sum.dispatch_counts().iter().sum::<usize>() + stepper.dispatch_count());
        mark("steps begin");
        steps(device, queue, |encoder| {
            sum.record(encoder).unwrap();
            sum.release(encoder).unwrap();
            stepper.record_step(encoder);
        });
        mark("steps end");
    });
    let Some(trace) = trace else { return };
    assert_calls(&trace, [STEPS as usize * dispatches.get(), 0, 0]);
}

/// Duplicates of a sparse gradient, and a step on the rows named, of micro-batches that a rule may leave out.
#[test]
fn sparse_rows_and_micro_batches_left_out_read_nothing_back() {
    let dispatches = Cell::new(0);
    let trace = traced(|device, queue, mark| {
        let clipper = Clipper::new(device).unwrap();
        let [indices, values, table] = [0, 1, 2].map(|i| gradients(device)[i].buffer().clone());
        let sparse = SparseGrad::new("table", &indices, &values, 10, [10, 10]);
        let coalescer = clipper.prepare_coalescing(&sparse).unwrap();
        let grads = [coalescer.grad().parameter(&table, 0, DType::F32)];
        let stepper = clipper.prepare_step(&grads, &Clip::global_norm(1.0), Adam::new(1e-3)).unwrap();
        let pairs = gradients(device).into_iter().zip(gradients(device));
        let grads: Vec<Grad> = pairs.map(|(g, p)| g.parameter(p.buffer(), 0, DType::F32)).collect();
        let (clip, skip) = (Clip::global_norm(1.0), Skip::non_finite().above(1e3));
        let trainer = clipper.prepare_training_skipping(&grads, &clip, Adam::adamw(1e-3), 4, skip).unwrap();
        let sums = clipper.prepare_accumulation(&accumulating(&trainer)).unwrap();
        let gated = trainer.gate().unwrap().dispatch_count() + 1 + 2 * sums.dispatch_count();
        let gated = gated + trainer.stepper().dispatch_count();
        dispatches.set(coalescer.dispatch_count() + stepper.dispatch_count() + gated);
        mark("steps begin");
        steps(device, queue, |encoder| {
            coalescer.record(encoder);
            stepper.record_step(encoder);
            trainer.record(encoder);
        });
        mark("steps end");
    });
    let Some(trace) = trace else { return };
    assert_calls_with_clears(&trace, [STEPS as usize * dispatches.get(), 0, 0], 2 * STEPS as usize);
}

/// A trainer's gradients with their accumulators.
fn accumulating(trainer: &Trainer) -> Vec<Grad> {
    let each = trainer.grads().iter().zip(trainer.accumulators());
    each.map(|(grad, sum)| grad.clone().accumulator(&sum.buffer, sum.offset)).collect()
}

/// With telemetry each report is one copy of three results and a tag into a place of the ring, in the
/// caller's own submit.
#[test]
fn telemetry_submits_nothing_of_its_own() {
    let trace = traced(|device, queue, mark| {
        let clipper = Clipper::with_options(device, ClipperOptions::default().read_backs(8)).unwrap();
        let pass = clipper.prepare(&gradients(device), &Clip::global_norm(1.0)).unwrap();
        let mut telemetry = Telemetry::default();
        let mut taken = 0;
        mark("steps begin");
        steps(device, queue, |encoder| {
            pass.record(encoder);
            telemetry.record(&pass, encoder);
            while let Some(report) = telemetry.poll() {
                report.unwrap();
                taken += 1;
            }
        });
        mark("steps end");
        assert_eq!(taken + telemetry.len() as u64 + telemetry.dropped(), u64::from(STEPS));
    });
    let Some(trace) = trace else { return };
    let count = |call: &str| trace.matches(call).count();
    assert_eq!(count("Submit("), STEPS as usize);
    // Outcomes, sums, tally, progress and tag, of reports that were not dropped.
    assert!(count("CopyBufferToBuffer") <= 5 * STEPS as usize && count("CopyBufferToBuffer") > 0);
    assert_eq!(count("CreateBuffer("), 1);
}
