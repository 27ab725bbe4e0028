//! Norms that the program hands in: TensorFlow's `use_norm`, and what else decides by the norm of the set.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Distribution, Named, Placing, assert_close, bits, data, gpu, named, tolerance};
use gradclip::cpu::{self, GradMut};
use gradclip::{
    Adam, Adapt, Clip, ClipError, ClipperOptions, DType, GiveUp, Grad, History, LossScale, NonFinite,
    NormType, Skip,
};

const SIZES: [usize; 3] = [5, 20_000, 257];

fn values() -> Vec<Vec<f32>> {
    SIZES.iter().zip(0..).map(|(&n, seed)| data(Distribution::Uniform(1.0), n, seed)).collect()
}

fn norms() -> Vec<f32> {
    let edges = [0.0, 1.0, 2.0, 2.000_000_2, 1e-40, f32::from_bits(1), f32::MIN_POSITIVE, 3e38, f32::MAX];
    let powers = (-40..38).map(|e| 1.234_567 * 10f32.powi(e));
    edges.into_iter().chain(powers).collect()
}

/// Whatever it is, the norm that is told is the one that was given, and the coefficient is its own.
#[test]
fn norms_are_taken_as_they_are() {
    let gpu = gpu();
    for kind in [NormType::Two, NormType::One, NormType::Inf, NormType::P(3.0)] {
        let clip = Clip::global_norm(2.0).use_norm(true).norm_type(kind);
        let mut history = History::default();
        let there = gpu.as_ref().map(|gpu| {
            let grads = gpu.separate(&[vec![1.0]]);
            (gpu, gpu.clipper.prepare(&grads, &clip).unwrap(), grads)
        });
        for norm in norms() {
            history.set_norm(norm);
            let mut g = [1.0f32];
            let report = cpu::clip_with(&mut [GradMut::new("t0", &mut g)], &clip, &mut history).unwrap();
            assert_eq!(report.norm(), Some(norm.into()), "{kind:?}");
            let want = if norm > 2.0 { 2.0 / norm } else { 1.0 };
            assert_eq!((report.coefficient(), g[0]), (Some(want.into()), want), "{kind:?} {norm:e}");
            assert_eq!(report.global_norm, f64::from(norm));
            assert!(report.tensors[0].norm.is_nan());
            let Some((gpu, pass, grads)) = &there else { continue };
            gpu.write(grads, &[[1.0f32]]);
            gpu.queue.write_buffer(pass.inputs(), 4, bytemuck::bytes_of(&norm));
            let report = gpu.run(pass);
            assert_eq!((report.norm(), report.coefficient()), (Some(norm.into()), Some(want.into())));
            assert_eq!(gpu.read::<f32>(grads[0].buffer())[0].to_bits(), want.to_bits(), "{kind:?} {norm:e}");
        }
        if let Some((gpu, pass, _)) = &there {
            assert_eq!(gpu.save(pass), history, "{kind:?} on {}", gpu.name);
        }
    }
}

/// `tf.clip_by_global_norm(t_list, clip_norm, use_norm)`: clip_norm * min(1 / use_norm, 1 / clip_norm), in f64.
#[test]
fn as_tensorflow_has_it() {
    let gpu = gpu();
    for (norm, clip_norm) in [(37.5f32, 4.0f32), (0.5, 4.0), (1e30, 1e-3)] {
        let clip = Clip::global_norm(clip_norm).use_norm(true);
        let mut history = History::default();
        history.set_norm(norm);
        let mut tensors = named(values());
        tensors[1].group = None;
        cpu::clip_with(&mut common::grads(&mut tensors), &clip, &mut history).unwrap();
        let scale = f64::from(clip_norm) * (1.0 / f64::from(norm)).min(1.0 / f64::from(clip_norm));
        let after: Vec<Vec<f32>> = tensors.iter().map(|t| t.data.floats()).collect();
        for (after, before) in after.iter().zip(values()) {
            let want = before.iter().map(|x| f64::from(*x) * scale);
            let got = after.iter().map(|x| f64::from(*x));
            assert_close(got, want, tolerance::SCALED, 1e-45, "use_norm");
        }
        let Some(gpu) = &gpu else { continue };
        for placing in [Placing::APART, Placing::PACKED] {
            for finish in [true, false] {
                let clipper = gpu.clipper_with(ClipperOptions::default().finish(finish));
                let placed = gpu.place(&named(values()), placing);
                let pass = clipper.prepare(&placed.grads, &clip).unwrap();
                // Nothing is reduced: the norm, the decision, and the gradients.
                assert_eq!(pass.half_dispatch_counts()[0], 0);
                gpu.queue.write_buffer(pass.inputs(), 4, bytemuck::bytes_of(&norm));
                gpu.run(&pass);
                let staged = gpu.submit(|encoder| gpu.stage(encoder, &placed.buffers));
                let got = placed.data(&gpu.collect(&staged).unwrap()).unwrap();
                let got: Vec<Vec<f32>> = got.iter().map(|data| data.floats()).collect();
                assert_eq!(bits(&got), bits(&after), "{placing:?}, {finish} on {}", gpu.name);
            }
        }
    }
}

/// What is no finite norm is found, whatever the gradients are, and goes the way of the policy.
#[test]
fn what_is_no_norm_is_a_policy() {
    let gpu = gpu();
    for norm in [f32::INFINITY, f32::NAN, -1.0, f32::NEG_INFINITY] {
        for policy in [NonFinite::Skip, NonFinite::Zero, NonFinite::Nan] {
            let clip = Clip::global_norm(1.0).use_norm(true).on_non_finite(policy);
            let mut history = History::default();
            history.set_norm(norm);
            let mut g = [3.0f32, 4.0];
            let report = cpu::clip_with(&mut [GradMut::new("t0", &mut g)], &clip, &mut history).unwrap();
            let told = report.norm().unwrap();
            assert!(if norm == f32::INFINITY { told == f64::INFINITY } else { told.is_nan() }, "{norm}");
            match policy {
                NonFinite::Skip => assert_eq!((g, report.skipped_steps), ([3.0, 4.0], 1)),
                NonFinite::Zero => assert_eq!(g, [0.0, 0.0]),
                _ => assert!(g.iter().all(|x| x.is_nan())),
            }
            let Some(gpu) = &gpu else { continue };
            let grads = gpu.separate(&[vec![3.0, 4.0]]);
            let pass = gpu.clipper.prepare(&grads, &clip).unwrap();
            gpu.queue.write_buffer(pass.inputs(), 4, bytemuck::bytes_of(&norm));
            let there = gpu.run(&pass);
            assert_eq!(there.segments[0].skipped, report.segments[0].skipped);
            let left = common::contents(gpu, &grads, &[vec![3.0, 4.0]]);
            assert_eq!(bits(&left), bits(&[g.to_vec()]), "{norm} {policy:?} on {}", gpu.name);
        }
    }
}

/// Adaptive thresholds, rules that leave out steps, loss scales, excluded groups and optimisers go by it as by a measured one: with the
/// norm that would be measured, the same happens.
#[test]
fn everything_else_goes_by_it() {
    let gpu = gpu();
    let given = || {
        let mut tensors = named(values());
        tensors[2].group = Some(Named::excluded("free"));
        tensors
    };
    let skip = Skip::z_score(3.0).window(4).above(1e4).max_consecutive(3, GiveUp::LetThrough);
    for clip in [
        Clip::global_norm(1.0).adapt(Adapt::Average { factor: 0.9, decay: 0.5 }),
        Clip::global_norm(1.0).adapt(Adapt::autoclip(50.0)).skip(skip),
        Clip::global_norm(3.0).loss_scale(LossScale::default().initial(2.0)).unscale(0.25),
        Clip::sign(1.0),
        Clip::normalize(2.0),
    ] {
        let (mut measured, mut used) = (History::default(), History::default());
        for step in 0..6 {
            let mut tensors = given();
            let unscale = if clip.loss_scale.is_some() { 8.0 } else { 1.0 };
            let before = cpu::clip_with(&mut common::grads(&mut tensors), &clip, &mut measured).unwrap();
            // As gradients lie: what is told is of unscaled ones, by powers of two.
            used.set_norm((before.norm().unwrap() * unscale) as f32);
            let mut others = given();
            let own = clip.use_norm(true);
            let report = cpu::clip_with(&mut common::grads(&mut others), &own, &mut used).unwrap();
            assert_eq!(report.norm(), before.norm(), "step {step}: {clip:?}");
            assert_eq!(report.coefficient(), before.coefficient(), "step {step}: {clip:?}");
            assert!(report.segments[1].norm.is_nan() && report.segments[1].excluded);
            let of = |tensors: &[common::Tensor]| -> Vec<Vec<f32>> {
                tensors.iter().map(|t| t.data.floats()).collect()
            };
            assert_eq!(bits(&of(&others)), bits(&of(&tensors)), "step {step}: {clip:?}");
            let Some(gpu) = &gpu else { continue };
            let placed = gpu.place(&given(), Placing::PACKED);
            let pass = gpu.clipper.prepare(&placed.grads, &own).unwrap();
            let mut history = History::default();
            std::mem::swap(&mut history, &mut used);
            // From before this step on the device.
            let mut again = History::default();
            for _ in 0..step {
                again.set_norm(history_norm(&before, unscale));
                cpu::clip_with(&mut common::grads(&mut given()), &own, &mut again).unwrap();
            }
            again.set_norm(history_norm(&before, unscale));
            if step > 0 {
                pass.restore_history(&gpu.queue, &again).unwrap();
            } else {
                gpu.queue.write_buffer(pass.inputs(), 4, bytemuck::bytes_of(&history_norm(&before, unscale)));
            }
            gpu.run(&pass);
            if clip.loss_scale.is_none() {
                assert_eq!(gpu.save(&pass), history, "step {step}: {clip:?} on {}", gpu.name);
            }
            used = history;
        }
    }
}

/// The same gradients come at every step, so the norm is the same, too.
fn history_norm(report: &gradclip::Report, unscale: f64) -> f32 {
    (report.norm().unwrap() * unscale) as f32
}

#[test]
fn a_step_goes_by_it() {
    let Some(gpu) = gpu() else { return };
    let step = |clip: &Clip, norm: Option<f32>| {
        let dw = gpu.upload(bytemuck::cast_slice(&[3.0f32, 4.0]));
        let w = gpu.upload(bytemuck::cast_slice(&[1.0f32, 1.0]));
        let grads = [Grad::new("w", &dw).parameter(&w, 0, DType::F32)];
        let stepper = gpu.clipper.prepare_step(&grads, clip, Adam::adamw(0.1)).unwrap();
        norm.iter().for_each(|n| gpu.queue.write_buffer(stepper.inputs(), 4, bytemuck::bytes_of(n)));
        gpu.submit(|encoder| stepper.record_step(encoder));
        gpu.read::<f32>(&w)
    };
    let clip = Clip::global_norm(1.0);
    assert_eq!(step(&clip, None), step(&clip.use_norm(true), Some(5.0)));
    assert_eq!(step(&clip.use_norm(true), Some(f32::NAN)), [1.0, 1.0]);
}

#[test]
fn where_it_means_nothing_it_is_refused() {
    for clip in
        [Clip::per_tensor_norm(1.0), Clip::per_group_norm(1.0), Clip::per_row_norm(1.0), Clip::value(1.0)]
    {
        assert!(matches!(clip.use_norm(true).validate(), Err(ClipError::Combination { .. })), "{clip:?}");
    }
    let clip = Clip::global_norm(1.0).use_norm(true);
    let nowhere = cpu::clip(&mut [GradMut::new("a", &mut [1.0f32])], &clip);
    assert!(matches!(nowhere, Err(ClipError::Combination { .. })));
    let f64s = cpu::clip_with(&mut [GradMut::f64("a", &mut [1.0])], &clip, &mut History::default());
    assert!(matches!(f64s, Err(ClipError::Combination { .. })));
}
