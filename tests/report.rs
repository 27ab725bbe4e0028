//! What a report tells of the whole set, in every scope, and of the step that follows: GPU and CPU alike.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::stepping::{Here, There};
use common::tolerance::TWICE_ROUNDED;
use common::{
    Distribution, Named, Placing, Random, SCOPES, Tensor, assert_close, data, floats, gpu, named, shaped,
    traced,
};
use gradclip::cpu::{self, GradMut, Moments, StepMut};
use gradclip::{Adam, Clip, History, LossScale, NonFinite, NormType, Report, Sgd};

/// Rows alike, so that every scope fits; the last one is excluded.
const SHAPES: [[u64; 2]; 4] = [[6, 5], [6, 800], [6, 3], [6, 40]];

fn tensors(kind: Distribution) -> Vec<Tensor> {
    let mut tensors = shaped(&SHAPES, |i, n| data(kind, n, i as u64));
    tensors[3].group = Some(Named::excluded("free"));
    tensors
}

fn on_cpu(tensors: &[Tensor], clip: &Clip) -> (Report, Vec<Tensor>) {
    let (trace, after) = traced(tensors, clip).unwrap();
    (trace.report, after)
}

#[test]
fn the_global_norm_is_told_in_every_scope() {
    let gpu = gpu();
    for kind in [
        Distribution::Uniform(1.0),
        Distribution::Uniform(3e38),
        Distribution::Subnormal,
        Distribution::Spike,
    ] {
        let given = tensors(kind);
        for norm in [NormType::One, NormType::Two, NormType::Inf, NormType::P(3.0)] {
            let clip = Clip::measure().norm_type(norm);
            let expected = on_cpu(&given, &clip).0.norm().unwrap();
            for scope in SCOPES {
                let clip = clip.scope(scope);
                let (report, _) = on_cpu(&given, &clip);
                // Units and rows are summed one by one: here the `f32` is the same.
                assert_eq!(report.global_norm, expected, "{kind:?} {norm:?} {scope:?}");
                let (Some(gpu), false) = (&gpu, matches!(norm, NormType::P(_))) else { continue };
                let grads = gpu.place(&given, Placing::APART).grads;
                let there = gpu.run(&gpu.clipper.prepare(&grads, &clip).unwrap());
                assert_eq!(there.global_norm, expected, "{kind:?} {norm:?} {scope:?} on {}", gpu.name);
            }
        }
    }
}

#[test]
fn f64_gradients_have_a_global_norm_too() {
    let mut tensors = named([vec![3.0, 1e-200], vec![4.0], vec![1e300]]);
    tensors[2].group = Some(Named::excluded("free"));
    let report = cpu::clip(&mut common::grads(&mut tensors), &Clip::per_tensor_norm(2.0)).unwrap();
    assert_eq!((report.global_norm, report.norm()), (5.0, None));
    // Two norms of 2.
    assert!((report.clipped_norm.unwrap() / 8f64.sqrt() - 1.0).abs() < 1e-15);
}

/// The f64 norm of what was written. An element is rounded once, by 2^-24 of it, and so is the norm that is told.
#[test]
fn the_norm_after_clipping_is_that_of_the_results() {
    let given = tensors(Distribution::Uniform(1.0));
    for scope in SCOPES {
        for (threshold, total) in [(1e9, None), (0.7, None), (3.0, Some(2.0))] {
            let mut clip = Clip::global_norm(threshold).scope(scope);
            clip.total = total;
            if clip.validate().is_err() {
                continue;
            }
            let (report, results) = on_cpu(&given, &clip);
            let own = common::norm(&floats(&results[..3]));
            match report.clipped_norm {
                Some(norm) => assert_close([norm], [own], TWICE_ROUNDED, 0.0, &format!("{scope:?}")),
                None => assert!(report.segments.is_empty(), "{scope:?}"),
            }
        }
    }
    let told = |tensors: &[Tensor], clip| on_cpu(tensors, &clip).0;
    assert_eq!(told(&given, Clip::value(0.1)).clipped_norm, None);
    assert_eq!(told(&given, Clip::sign(0.1)).clipped_norm, None);
    let global = Clip::global_norm(1.0);
    assert_eq!(told(&shaped(&SHAPES, |_, n| vec![0.0; n]), global).clipped_norm, Some(0.0));
    let broken = |by: f32| {
        let mut broken = given.clone();
        let mut values = broken[1].data.floats();
        values[7] = by;
        broken[1].data = values.into();
        broken
    };
    assert!(told(&broken(f32::NAN), global).global_norm.is_nan());
    assert_eq!(told(&broken(f32::NEG_INFINITY), global).global_norm, f64::INFINITY);
    let zeroed = told(&broken(f32::NEG_INFINITY), global.on_non_finite(NonFinite::Zero));
    assert_eq!((zeroed.global_norm, zeroed.clipped_norm), (f64::INFINITY, Some(0.0)));
}

/// Rates that change, a loss scale that falls where a gradient overflows, steps that are skipped then.
#[test]
fn steps_tell_rate_updates_and_loss_scale() {
    let scale = LossScale::default().initial(8.0).interval(2);
    let clip = Clip::global_norm(1.0).loss_scale(scale);
    let rates = [0.5, 0.25, 0.125, 1e-3, 0.1];
    let overflows = [false, true, false, false, false];
    // Doubled after two finite steps, halved by the overflow: PyTorch's GradScaler, with growth 2 and backoff 1/2.
    let (scales, updates) = ([8.0, 4.0, 4.0, 8.0, 8.0], [1, 1, 2, 3, 4]);
    let mut random = Random(3);
    let batches = overflows.map(|overflows| {
        let mut g: Vec<f32> = (0..37).map(|_| random.unit()).collect();
        g[5] = if overflows { f32::INFINITY } else { g[5] };
        g
    });
    let tensors = [Tensor::new("w", vec![0.0f32; 37]).parameter(vec![1.0f32; 37])];
    let mut here = Here::new(&tensors, &clip, Adam::adamw(1.0));
    let mut reports = Vec::new();
    for (step, g) in batches.iter().enumerate() {
        here.optimizer = Adam::adamw(rates[step]).into();
        here.put(std::slice::from_ref(g));
        let report = here.step();
        assert_eq!((report.updates, report.loss_scale), (updates[step], Some(scales[step])), "step {step}");
        assert_eq!(report.lr, Some(f64::from(rates[step] as f32)), "step {step}");
        reports.push(report);
    }
    let Some(gpu) = gpu() else { return };
    let mut there = There::new(&gpu, &tensors, &clip, Adam::adamw(1.0));
    for (step, g) in batches.iter().enumerate() {
        there.put(std::slice::from_ref(g));
        there.stepper.set_lr(&gpu.queue, rates[step]).unwrap();
        let report = gpu.submit(|encoder| {
            there.stepper.record_step(encoder);
            there.stepper.pass().read_back(encoder).unwrap()
        });
        let mut report = report.wait().unwrap();
        // NaN is unlike itself.
        if overflows[step] {
            assert!(report.segments[0].skipped && report.clipped_norm.unwrap().is_infinite());
        }
        report.segments.iter_mut().for_each(|s| s.name = None);
        assert_eq!(report, reports[step], "step {step} on {}", gpu.name);
    }
}

#[test]
fn clips_alone_have_no_rate() {
    let mut g = vec![3.0f32, 4.0];
    let report = cpu::clip(&mut [GradMut::new("g", &mut g)], &Clip::global_norm(1.0)).unwrap();
    assert_eq!((report.lr, report.loss_scale, report.updates), (None, None, 0));
    assert_eq!((report.global_norm, report.clipped_norm), (5.0, Some(f64::from(0.2f32) * 5.0)));
    let mut p = [1.0f32, 1.0];
    let sgd = Sgd::new(0.5);
    let (mut history, mut moments) = (History::default(), Moments::default());
    let mut steps = [StepMut::new("w", &g[..], &mut p)];
    let report = cpu::step(&mut steps, &Clip::global_norm(1.0), sgd, &mut history, &mut moments).unwrap();
    assert_eq!((report.lr, report.loss_scale, report.updates), (Some(0.5), None, 1));
}
