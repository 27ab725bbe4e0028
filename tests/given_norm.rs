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

/// Adaptive thresholds, rules that leave out steps, loss scales, excluded groups go by it as by a measured one: with the norm that would be
/// measured, the same happens, step after step, a spike among them.
#[test]
fn everything_else_goes_by_it() {
    let gpu = gpu();
    let given = |size: f32| {
        let scaled = |values: Vec<f32>| values.into_iter().map(|x| x * size).collect::<Vec<_>>();
        let mut tensors = named(values().into_iter().map(scaled).collect::<Vec<_>>());
        tensors[2].group = Some(Named::excluded("free"));
        tensors
    };
    let floats =
        |tensors: &[common::Tensor]| -> Vec<Vec<f32>> { tensors.iter().map(|t| t.data.floats()).collect() };
    let skip = Skip::z_score(3.0).window(4).first(3).max_consecutive(1, GiveUp::LetThrough);
    // Powers of two, so that a norm that is told is one of gradients as they lie.
    for (clip, unscale) in [
        (Clip::global_norm(1.0).adapt(Adapt::Average { factor: 0.9, decay: 0.5 }), 1.0),
        (Clip::global_norm(1.0).adapt(Adapt::autoclip(50.0)).skip(skip), 1.0),
        (Clip::global_norm(3.0).loss_scale(LossScale::default().initial(2.0)).unscale(0.25), 8.0),
        (Clip::sign(1.0), 1.0),
        (Clip::normalize(2.0), 1.0),
    ] {
        let own = clip.use_norm(true);
        let (mut measured, mut used, mut spikes) = (History::default(), History::default(), 0);
        let there = gpu.as_ref().map(|gpu| {
            let placed = gpu.place(&given(1.0), Placing::APART);
            let pass = gpu.clipper.prepare(&placed.grads, &own).unwrap();
            (gpu, placed.grads, pass)
        });
        for (step, size) in [1.0f32, 2.0, 0.5, 64.0, 32.0, 1.0].into_iter().enumerate() {
            let mut tensors = given(size);
            let before = cpu::clip_with(&mut common::grads(&mut tensors), &clip, &mut measured).unwrap();
            let norm = (before.norm().unwrap() * unscale) as f32;
            used.set_norm(norm);
            let mut others = given(size);
            let report = cpu::clip_with(&mut common::grads(&mut others), &own, &mut used).unwrap();
            let what = format!("step {step}: {clip:?}");
            assert_eq!(report.norm(), before.norm(), "{what}");
            assert_eq!((report.coefficient(), report.skip), (before.coefficient(), before.skip), "{what}");
            assert!(report.segments[1].norm.is_nan() && report.segments[1].excluded);
            assert_eq!(report.segments[1].first_non_finite, None);
            assert_eq!(bits(&floats(&others)), bits(&floats(&tensors)), "{what}");
            spikes += u64::from(report.skip.is_some_and(|skip| skip.is_spike()));
            let Some((gpu, grads, pass)) = &there else { continue };
            gpu.write(grads, &floats(&given(size)));
            gpu.queue.write_buffer(pass.inputs(), 4, bytemuck::bytes_of(&norm));
            let found = gpu.run(pass);
            // NaN is not itself.
            let told = |r: &gradclip::Report| format!("{:?} {:?}", r.segments, r.skip);
            assert_eq!(told(&found), told(&report), "{what} on {}", gpu.name);
            let left = common::contents(gpu, grads, &floats(&given(size)));
            assert_eq!(bits(&left), bits(&floats(&others)), "{what} on {}", gpu.name);
            assert_eq!(gpu.save(pass), used, "{what} on {}", gpu.name);
        }
        assert!(spikes > 0 || clip.skip.is_none());
    }
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
