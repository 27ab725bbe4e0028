//! Dynamic loss scaling, and the corrections of Adam: a plain program of what PyTorch's GradScaler
//! documents, CPU and GPU equal to the bit.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::stepping::{Here, There};
use common::tolerance::{CORRECTION, NORM_UNSCALED};
use common::{Gpu, Placing, Random, Tensor, assert_close, bits, floats, gpu, named};
use gradclip::cpu;
use gradclip::layout::Progress;
use gradclip::{Adam, Adapt, Clip, ClipError, Grad, History, LossScale, NonFinite, Pass};

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

fn progress(gpu: &Gpu, pass: &Pass) -> Progress {
    gpu.read(pass.progress())[0]
}

fn tensors(values: &[[f32; 3]; 2]) -> Vec<Tensor> {
    named(values.map(|t| t.to_vec()))
}

/// What a clip makes of tensors on the CPU path, and where they are placed on a device.
fn clip_with(
    values: &[[f32; 3]; 2],
    clip: &Clip,
    history: &mut History,
) -> (gradclip::Report, Vec<Vec<f32>>) {
    let mut own = tensors(values);
    let report = cpu::clip_with(&mut common::grads(&mut own), clip, history).unwrap();
    (report, floats(&own))
}

fn prepared(gpu: &Gpu, clip: &Clip) -> (Pass, Vec<Grad>) {
    let grads = gpu.place(&tensors(&[[0.0; 3]; 2]), Placing::APART).grads;
    (gpu.clipper.prepare(&grads, clip).unwrap(), grads)
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
        let there = gpu.as_ref().map(|gpu| prepared(gpu, &clip));
        for (step, (tensors, want)) in run().iter().zip(scales(&scale)).enumerate() {
            let before = on_host.loss_scale(&clip);
            assert_eq!(before, want, "{clip:?}, step {step}");
            let (report, clipped) = clip_with(tensors, &clip, &mut on_host);
            // Gradients of the unscaled loss, under the clip's own limit.
            if finite(tensors) && report.segments.len() == 1 {
                let norm = common::norm(&tensors.map(|t| t.to_vec())) / f64::from(before);
                let what = format!("{clip:?}, step {step}");
                assert_close([report.norm().unwrap()], [norm], NORM_UNSCALED, 0.0, &what);
            }
            if let (Some(gpu), Some((pass, grads))) = (&gpu, &there) {
                gpu.write(grads, tensors);
                gpu.submit(|encoder| pass.record(encoder));
                let what = format!("{clip:?}, step {step} on {}", gpu.name);
                let same = [progress(gpu, pass).scale, progress(gpu, pass).unscale];
                let here = on_host.loss_scale(&clip);
                assert_eq!(same, [here, 1.0 / here], "{what}");
                let got: Vec<Vec<f32>> = grads.iter().map(|grad| gpu.read(grad.buffer())).collect();
                assert_eq!(bits(&got), bits(&clipped), "{what}");
            }
        }
    }
}

/// Scale, counts and corrections of Adam over the same run: every bit, and saved and restored in the
/// middle on either side.
#[test]
fn progress_has_the_same_bits_and_goes_on_where_it_was_saved() {
    let Some(gpu) = gpu() else { return };
    let clip = Clip::global_norm(1.0).loss_scale(LossScale::default().interval(3));
    let adam = Adam::adamw(1e-3).betas(0.87, 0.9993);
    let own: Vec<Tensor> =
        tensors(&[[0.0; 3]; 2]).into_iter().map(|tensor| tensor.parameter(vec![0.5f32; 3])).collect();
    let mut here = Here::new(&own, &clip, adam);
    let mut there = There::new(&gpu, &own, &clip, adam);
    let mut updates = 0;
    for (step, tensors) in run().iter().enumerate() {
        if step == STEPS / 2 {
            // What was saved there goes on here, and the other way round.
            let saved = gpu.save(there.stepper.pass());
            assert_eq!(saved, here.history);
            here.history = History::from_bytes(&saved.to_bytes()).unwrap();
            let again = There::with(&gpu, &gpu.clipper, there.placed, &clip, adam);
            again.stepper.pass().restore_history(&gpu.queue, &here.history).unwrap();
            there = again;
        }
        let gradients = tensors.map(|t| t.to_vec());
        here.put(&gradients);
        here.step();
        there.put(&gradients);
        there.step();
        updates += u64::from(finite(tensors));
        assert_eq!(here.history.updates(), updates);
        assert_eq!(gpu.save(there.stepper.pass()), here.history, "step {step} on {}", gpu.name);
        if finite(tensors) {
            // The corrections, from their definition in f64; their roundings are argued in cpu/advance.rs.
            let progress = progress(&gpu, there.stepper.pass());
            let first = 1.0 / (1.0 - 0.87f64.powi(updates as i32));
            let second = 1.0 / (1.0 - 0.9993f64.powi(updates as i32)).sqrt();
            let own = [progress.correction, progress.second_correction];
            assert_close(own, [first, second], CORRECTION, 0.0, &format!("step {step}"));
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
            cpu::clip_with(&mut [cpu::GradMut::new("g", &mut g)], &clip, &mut on_host).unwrap();
        }
        let end = if gradient.is_finite() { 2f32.powi(126) } else { 2f32.powi(-126) };
        assert_eq!(on_host.loss_scale(&clip), end);
        let Some(gpu) = &gpu else { continue };
        let grads = gpu.separate(&[vec![gradient]]);
        let pass = gpu.clipper.prepare(&grads, &clip).unwrap();
        for _ in 0..4 {
            gpu.queue.write_buffer(grads[0].buffer(), 0, &gradient.to_le_bytes());
            gpu.submit(|encoder| pass.record(encoder));
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
    let report =
        cpu::clip_with(&mut [cpu::GradMut::new("g", &mut g)], &clip, &mut History::default()).unwrap();
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
    cpu::clip_with(&mut [cpu::GradMut::new("g", &mut g)], &scaled, &mut history).unwrap();
    let refused =
        cpu::clip_with(&mut [cpu::GradMut::new("g", &mut g)], &Clip::measure(), &mut history).unwrap_err();
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
        let there = gpu.as_ref().map(|gpu| prepared(gpu, &scaled));
        for step in 0..20 {
            let tensors =
                [[1.0f32, 2.0, -3.0], [0.5, 0.25, 4.0]].map(|t| t.map(|x| x * (1.0 + step as f32 / 7.0)));
            let scale = on_host.loss_scale(&scaled);
            let (_, want) = clip_with(&tensors, &clip, &mut plain);
            let large = tensors.map(|t| t.map(|x| x * scale));
            let (_, got) = clip_with(&large, &scaled, &mut on_host);
            assert_eq!((got, on_host.thresholds()), (want, plain.thresholds()), "{clip:?}, step {step}");
            if let (Some(gpu), Some((pass, grads))) = (&gpu, &there) {
                gpu.write(grads, &large);
                gpu.submit(|encoder| pass.record(encoder));
                assert_eq!(gpu.save(pass), on_host, "{clip:?}, step {step} on {}", gpu.name);
            }
        }
        assert!(on_host.loss_scale(&scaled) > 64.0);
    }
}
