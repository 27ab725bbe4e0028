//! Dynamic loss scaling, and the corrections of Adam: a plain program of what PyTorch's GradScaler
//! documents, CPU and GPU equal to the bit.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Gpu, Random, gpu};
use gradclip::cpu::{self, GradMut, Moments, StepMut};
use gradclip::layout::Progress;
use gradclip::{Adam, Adapt, Clip, ClipError, DType, Grad, History, LossScale, NonFinite, Optimizer, Pass};

const STEPS: usize = 60;

/// Two finite steps in three; an infinity in the others, in a tensor that differs.
fn run() -> Vec<[[f32; 3]; 2]> {
    let mut random = Random(5);
    (0..STEPS)
        .map(|_| {
            let mut tensors = [[1.0f32, 2.0, -3.0], [0.5, 0.25, 4.0]];
            if random.bits().is_multiple_of(3) {
                tensors[random.bits() as usize % 2][1] =
                    [f32::INFINITY, f32::NAN][random.bits() as usize % 2];
            }
            tensors
        })
        .collect()
}

fn finite(tensors: &[[f32; 3]; 2]) -> bool {
    tensors.iter().flatten().all(|x| x.is_finite())
}

/// torch.amp.GradScaler.update.
fn scales(scale: &LossScale) -> Vec<f32> {
    let (mut now, mut good) = (scale.initial, 0);
    let mut all = vec![now];
    for tensors in run() {
        if finite(&tensors) {
            good += 1;
            if good == scale.interval {
                (now, good) = (now * scale.growth, 0);
            }
        } else {
            (now, good) = (now * scale.backoff, 0);
        }
        all.push(now);
    }
    all
}

fn submit(gpu: &Gpu, record: impl FnOnce(&mut gradclip::wgpu::CommandEncoder)) {
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    record(&mut encoder);
    gpu.queue.submit([encoder.finish()]);
}

fn upload(gpu: &Gpu, grads: &[Grad], tensors: &[[f32; 3]; 2]) {
    grads
        .iter()
        .zip(tensors)
        .for_each(|(g, t)| gpu.queue.write_buffer(g.buffer(), 0, bytemuck::cast_slice(t)));
}

fn progress(gpu: &Gpu, pass: &Pass) -> Progress {
    gpu.read(pass.progress())[0]
}

fn history(gpu: &Gpu, pass: &Pass) -> History {
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    let saved = pass.save_history(&mut encoder).unwrap();
    gpu.queue.submit([encoder.finish()]);
    saved.wait().unwrap()
}

/// Clipping alone, under every scope whose segments differ and every policy: the scale depends on neither.
#[test]
fn the_scale_follows_the_gradients() {
    let gpu = gpu();
    let scale = LossScale::default().initial(1000.0).growth(3.0).backoff(0.3).interval(2);
    for clip in [
        Clip::global_norm(1.0),
        Clip::per_tensor_norm(1.0).on_non_finite(NonFinite::Sanitize),
        Clip::value(0.1),
    ] {
        let clip = clip.loss_scale(scale);
        let mut on_host = History::default();
        let there = gpu.as_ref().map(|gpu| {
            let grads = gpu.separate(&[vec![0.0; 3], vec![0.0; 3]]);
            (gpu.clipper.prepare(&grads, &clip).unwrap(), grads)
        });
        for (step, (tensors, want)) in run().iter().zip(scales(&scale)).enumerate() {
            let before = on_host.loss_scale(&clip);
            assert_eq!(before, want, "{clip:?}, step {step}");
            let mut clipped = *tensors;
            let mut grads: Vec<_> = clipped.iter_mut().map(|t| GradMut::new("t", t)).collect();
            let report = cpu::clip_with(&mut grads, &clip, &mut on_host).unwrap();
            // Gradients of the unscaled loss, under the clip's own limit.
            if finite(tensors) && report.segments.len() == 1 {
                let norm = common::norm(&tensors.map(|t| t.to_vec())) / f64::from(before);
                assert!((report.norm().unwrap() / norm - 1.0).abs() < 2e-7);
            }
            if let (Some(gpu), Some((pass, grads))) = (&gpu, &there) {
                upload(gpu, grads, tensors);
                submit(gpu, |encoder| pass.record(encoder));
                let same = [progress(gpu, pass).scale, progress(gpu, pass).unscale];
                let here = on_host.loss_scale(&clip);
                assert_eq!(same, [here, 1.0 / here], "{clip:?}, step {step} on {}", gpu.name);
                for (grad, t) in grads.iter().zip(&clipped) {
                    let got: Vec<f32> = gpu.read(grad.buffer());
                    assert_eq!(
                        got.map_bits(),
                        t.to_vec().map_bits(),
                        "{clip:?}, step {step} on {}",
                        gpu.name
                    );
                }
            }
        }
    }
}

trait Bits {
    fn map_bits(&self) -> Vec<u32>;
}

impl Bits for Vec<f32> {
    fn map_bits(&self) -> Vec<u32> {
        self.iter().map(|x| x.to_bits()).collect()
    }
}

/// Scale, counts and corrections of Adam over the same run: every bit, and saved and restored in the
/// middle on either side.
#[test]
fn progress_has_the_same_bits_and_goes_on_where_it_was_saved() {
    let Some(gpu) = gpu() else { return };
    let clip = Clip::global_norm(1.0).loss_scale(LossScale::default().interval(3));
    let adam = Adam::adamw(1e-3).betas(0.87, 0.9993);
    let there = gpu.separate(&[vec![0.5; 3], vec![0.5; 3]]);
    let grads: Vec<Grad> = gpu
        .separate(&[vec![0.0; 3], vec![0.0; 3]])
        .into_iter()
        .zip(&there)
        .map(|(g, p)| g.parameter(p.buffer(), 0, DType::F32))
        .collect();
    let mut stepper = gpu.clipper.prepare_step(&grads, &clip, adam).unwrap();
    let (mut on_host, mut moments) = (History::default(), Moments::default());
    let mut parameters = [[0.5f32; 3]; 2];
    let optimizer = Optimizer::from(adam);
    let mut updates = 0;
    for (step, tensors) in run().iter().enumerate() {
        if step == STEPS / 2 {
            // What was saved there goes on here, and the other way round.
            let saved = history(&gpu, stepper.pass());
            assert_eq!(saved, on_host);
            on_host = History::from_bytes(&saved.to_bytes()).unwrap();
            let again = gpu.clipper.prepare_step(&grads, &clip, adam).unwrap();
            again.pass().restore_history(&gpu.queue, &on_host).unwrap();
            stepper = again;
        }
        let mut steps: Vec<StepMut<'_>> =
            parameters.iter_mut().zip(tensors).map(|(p, g)| StepMut::new("t", &g[..], p)).collect();
        cpu::step(&mut steps, &clip, &optimizer, &mut on_host, &mut moments).unwrap();
        upload(&gpu, &grads, tensors);
        submit(&gpu, |encoder| stepper.record_step(encoder));
        updates += u64::from(finite(tensors));
        assert_eq!(on_host.updates(), updates);
        assert_eq!(history(&gpu, stepper.pass()), on_host, "step {step} on {}", gpu.name);
        if finite(tensors) {
            // The corrections, from their definition in f64; their roundings are argued in cpu/advance.rs.
            let progress = progress(&gpu, stepper.pass());
            let first = 1.0 / (1.0 - 0.87f64.powi(updates as i32));
            let second = 1.0 / (1.0 - 0.9993f64.powi(updates as i32)).sqrt();
            assert!((f64::from(progress.correction) / first - 1.0).abs() < 2e-6, "step {step}");
            assert!((f64::from(progress.second_correction) / second - 1.0).abs() < 2e-6, "step {step}");
        }
    }
    assert!((10..STEPS as u64 - 10).contains(&updates));
}

/// The scale stays where its reciprocal is a normal number.
#[test]
fn the_scale_has_two_ends() {
    let gpu = gpu();
    for (initial, gradient) in [(2f32.powi(125), 1.0f32), (2f32.powi(-125), f32::INFINITY)] {
        let clip = Clip::measure().loss_scale(LossScale::default().initial(initial).interval(1));
        let mut on_host = History::default();
        for _ in 0..4 {
            let mut g = [gradient];
            cpu::clip_with(&mut [GradMut::new("g", &mut g)], &clip, &mut on_host).unwrap();
        }
        let end = if gradient.is_finite() { 2f32.powi(126) } else { 2f32.powi(-126) };
        assert_eq!(on_host.loss_scale(&clip), end);
        let Some(gpu) = &gpu else { continue };
        let grads = gpu.separate(&[vec![gradient]]);
        let pass = gpu.clipper.prepare(&grads, &clip).unwrap();
        for _ in 0..4 {
            gpu.queue.write_buffer(grads[0].buffer(), 0, &gradient.to_le_bytes());
            submit(gpu, |encoder| pass.record(encoder));
        }
        assert_eq!((progress(gpu, &pass).scale, progress(gpu, &pass).unscale), (end, 1.0 / end));
    }
}

/// The clip's own factor, of an accumulation say, is beside that of the loss.
#[test]
fn both_factors_hold() {
    let gpu = gpu();
    let clip = Clip::global_norm(1.0).unscale(0.25).loss_scale(LossScale::default().initial(8.0));
    let mut g = [12.0f32 * 8.0, 16.0 * 8.0];
    let report = cpu::clip_with(&mut [GradMut::new("g", &mut g)], &clip, &mut History::default()).unwrap();
    assert_eq!((report.norm(), g), (Some(5.0), [0.6, 0.8]));
    let Some(gpu) = gpu else { return };
    let (report, after) = gpu.clip(&[vec![12.0 * 8.0, 16.0 * 8.0]], &clip);
    assert_eq!((report.norm(), &after[0][..]), (Some(5.0), &g[..]));
}

#[test]
fn wrong_constants_and_other_histories_are_refused() {
    let good = LossScale::default();
    for wrong in [
        good.initial(0.0),
        good.initial(f32::INFINITY),
        good.initial(f32::NAN),
        good.initial(2f32.powi(127)),
        good.growth(0.5),
        good.backoff(0.0),
        good.backoff(2.0),
        good.interval(0),
    ] {
        let refused = Clip::measure().loss_scale(wrong).validate().unwrap_err();
        assert!(matches!(refused, ClipError::LossScale { .. }), "{wrong:?}");
    }
    let scaled = Clip::measure().loss_scale(good);
    let mut history = History::default();
    let mut g = [1.0f32];
    cpu::clip_with(&mut [GradMut::new("g", &mut g)], &scaled, &mut history).unwrap();
    let refused =
        cpu::clip_with(&mut [GradMut::new("g", &mut g)], &Clip::measure(), &mut history).unwrap_err();
    assert!(refused.to_string().contains("loss scaling"), "{refused}");
}

/// Thresholds that adapt see the norms of the unscaled loss: with scales that are powers of two, the same
/// bits as without any.
#[test]
fn adaptive_thresholds_see_unscaled_norms() {
    let gpu = gpu();
    for clip in [
        Clip::global_norm(9.0).adapt(Adapt::Average { factor: 1.1, decay: 0.9 }),
        Clip::global_norm(9.0).adapt(Adapt::autoclip(30.0)),
        Clip::adagc(2.0),
    ] {
        let scaled = clip.loss_scale(LossScale::default().initial(64.0).interval(5));
        let (mut plain, mut on_host) = (History::default(), History::default());
        let there = gpu.as_ref().map(|gpu| {
            let grads = gpu.separate(&[vec![0.0; 3], vec![0.0; 3]]);
            (gpu.clipper.prepare(&grads, &scaled).unwrap(), grads)
        });
        for step in 0..20 {
            let tensors =
                [[1.0f32, 2.0, -3.0], [0.5, 0.25, 4.0]].map(|t| t.map(|x| x * (1.0 + step as f32 / 7.0)));
            let scale = on_host.loss_scale(&scaled);
            let run = |mut tensors: [[f32; 3]; 2], clip: &Clip, history: &mut History| {
                let mut grads: Vec<_> = tensors.iter_mut().map(|t| GradMut::new("t", t)).collect();
                cpu::clip_with(&mut grads, clip, history).unwrap();
                tensors
            };
            let want = run(tensors, &clip, &mut plain);
            let large = tensors.map(|t| t.map(|x| x * scale));
            let got = run(large, &scaled, &mut on_host);
            assert_eq!((got, on_host.thresholds()), (want, plain.thresholds()), "{clip:?}, step {step}");
            if let (Some(gpu), Some((pass, grads))) = (&gpu, &there) {
                upload(gpu, grads, &large);
                submit(gpu, |encoder| pass.record(encoder));
                assert_eq!(history(gpu, pass), on_host, "{clip:?}, step {step} on {}", gpu.name);
            }
        }
        assert!(on_host.loss_scale(&scaled) > 64.0);
    }
}
