//! A prepared clip on the CPU: the same bits as one that is not, step after step, without allocating.

#![allow(clippy::unwrap_used)]

mod common;

#[path = "common/allocations.rs"]
mod allocations;

use allocations::allocations;
use common::{Distribution, bits, data, floats, grads};
use gradclip::cpu::{self, GradMut, Prepared, SliceMut};
use gradclip::{Adapt, Clip, ClipError, Group, History, LossScale, NonFinite, NormType, Rule, Scope, Units};
use gradclip_verify::inputs;
use half::{bf16, f16};

fn uniform(len: usize, seed: u64) -> Vec<f32> {
    data(Distribution::Uniform(2.0), len, seed)
}

/// Every rule, scope and norm of `f32` gradients: as `clip_with`, for three steps of other elements.
#[test]
fn the_same_bits_as_unprepared() {
    for how in inputs::clips() {
        let mut set = inputs::four_rows(7, &how);
        set.iter_mut().for_each(|t| t.parameter = t.parameter.as_ref().map(|p| p.floats().into()));
        let parameters = common::stepping::parameters(&set);
        let (mut history, mut prepared) = (History::default(), None::<Prepared>);
        for step in 0..3u64 {
            for (i, tensor) in set.iter_mut().enumerate() {
                tensor.data = uniform(tensor.data.len(), 31 * step + i as u64).into();
            }
            let (mut given, mut expected) = (floats(&set), set.clone());
            let mut grads = grads(&mut expected);
            let prepared = prepared.get_or_insert_with(|| cpu::prepare(&grads, &how).unwrap());
            let report = cpu::clip_with(&mut grads, &how, &mut history).unwrap();
            let slices = given.iter_mut().map(|v| &mut v[..]);
            match how.rule {
                Rule::Agc { .. } => {
                    prepared.clip_with_parameters(slices.zip(parameters.iter().map(|p| &p[..]))).unwrap();
                }
                _ => prepared.clip(slices).unwrap(),
            }
            assert_eq!(bits(&given), bits(&floats(&expected)), "{how:?}, step {step}");
            assert_eq!(prepared.report().as_ref(), Some(&report), "{how:?}, step {step}");
            assert_eq!(prepared.norm(), report.norm(), "{how:?}");
            assert_eq!(prepared.coefficient(), report.coefficient(), "{how:?}");
            assert_eq!(*prepared.history(), history, "{how:?}");
        }
    }
}

/// Large tensors beside small ones, so that threads share them, with thresholds and loss scales that remember.
#[test]
fn many_steps_that_remember() {
    let lens = [300_000, 7, 20_000, 1];
    let clips = [
        Clip::global_norm(1.0).adapt(Adapt::Mean { factor: 0.9, window: 2 }),
        Clip::per_tensor_norm(1.0).adapt(Adapt::Average { factor: 0.9, decay: 0.5 }),
        Clip::global_norm(1.0).loss_scale(LossScale::default().interval(2)),
        Clip::per_unit_norm(1.0, Units::OutputFirst).on_non_finite(NonFinite::Sanitize),
    ];
    for clip in clips {
        let (mut history, mut prepared) = (History::default(), None::<Prepared>);
        for step in 0..4u64 {
            let mut expected: Vec<Vec<f32>> =
                lens.iter().map(|&n| data(Distribution::Uniform(2.0 + step as f32), n, step)).collect();
            if step == 2 {
                expected[0][250_000] = f32::NAN;
            }
            let mut given = expected.clone();
            let mut grads: Vec<GradMut<'_>> = expected
                .iter_mut()
                .map(|v| {
                    let len = v.len() as u64;
                    GradMut::new("t", v).shape(&[len.div_ceil(100), len.min(100)])
                })
                .collect();
            let prepared = prepared.get_or_insert_with(|| cpu::prepare(&grads, &clip).unwrap());
            let report = cpu::clip_with(&mut grads, &clip, &mut history).unwrap();
            prepared.clip(given.iter_mut().map(|v| &mut v[..])).unwrap();
            assert_eq!(bits(&given), bits(&expected), "{clip:?}, step {step}");
            assert_eq!(format!("{:?}", prepared.report().unwrap()), format!("{report:?}"), "{clip:?}");
            assert_eq!(*prepared.history(), history, "{clip:?}");
        }
        // What was saved goes on elsewhere as it would have here.
        let mut here = prepared.unwrap();
        let mut tensors: [Vec<Vec<f32>>; 2] = [0, 0].map(|_| lens.iter().map(|&n| uniform(n, 9)).collect());
        let mut there = {
            let like = tensors[0].iter_mut().map(|v| {
                let len = v.len() as u64;
                GradMut::new("t", v).shape(&[len.div_ceil(100), len.min(100)])
            });
            cpu::prepare(&like.collect::<Vec<_>>(), &clip).unwrap()
        };
        there.restore_history(History::from_bytes(&here.history().to_bytes()).unwrap()).unwrap();
        for (prepared, own) in [&mut here, &mut there].into_iter().zip(&mut tensors) {
            prepared.clip(own.iter_mut().map(|v| &mut v[..])).unwrap();
        }
        assert_eq!(bits(&tensors[0]), bits(&tensors[1]), "{clip:?}");
        assert_eq!(here.history(), there.history());
        assert_eq!(here.history().steps(), 5);
    }
}

#[test]
fn thresholds_that_are_set() {
    let (mut a, mut b) = ([3.0f32, 0.0], [0.0f32, 4.0]);
    let like = [GradMut::new("a", &mut a), GradMut::new("b", &mut b)];
    let mut prepared = cpu::prepare(&like, &Clip::global_norm(10.0)).unwrap();
    assert_eq!((prepared.norm(), prepared.report()), (None, None));
    prepared.clip([&mut a[..], &mut b]).unwrap();
    assert_eq!((prepared.norm(), prepared.coefficient(), a[0]), (Some(5.0), Some(1.0), 3.0));
    prepared.set_threshold(2.5).unwrap();
    prepared.clip([&mut a[..], &mut b]).unwrap();
    assert_eq!((prepared.coefficient(), a[0], b[1]), (Some(0.5), 1.5, 2.0));
    prepared.set_unscale(2.0).unwrap();
    prepared.clip([&mut a[..], &mut b]).unwrap();
    assert_eq!((prepared.norm(), a[0], b[1]), (Some(5.0), 1.5, 2.0));
    assert!(matches!(prepared.set_threshold(-1.0), Err(ClipError::Threshold { .. })));
    assert!(matches!(prepared.set_unscale(f32::NAN), Err(ClipError::Unscale { .. })));
    prepared.clip([&mut a[..], &mut b]).unwrap();
    assert_eq!(prepared.norm(), Some(5.0));
}

/// Whatever does not fit is told, and nothing is written.
#[test]
fn what_was_not_prepared_is_refused() {
    let (mut a, mut b) = ([3.0f32, 0.0], [f16::from_f32(4.0)]);
    let like = [GradMut::new("a", &mut a), GradMut::f16("b", &mut b)];
    let mut prepared = cpu::prepare(&like, &Clip::global_norm(1.0)).unwrap();
    let given = |prepared: &mut Prepared, grads: Vec<cpu::SliceMut<'_>>| prepared.clip(grads).unwrap_err();
    let mut short = [3.0f32];
    let error = given(&mut prepared, vec![short[..].as_mut().into(), b[..].as_mut().into()]);
    assert_eq!(
        error.to_string(),
        "tensor `a`: required a gradient of 2 elements of f32, as prepared, given 1 of f32"
    );
    let mut other = [bf16::from_f32(4.0)];
    let error = given(&mut prepared, vec![a[..].as_mut().into(), other[..].as_mut().into()]);
    assert!(error.to_string().contains("tensor `b`") && error.to_string().ends_with("given 1 of bf16"));
    let error = given(&mut prepared, vec![a[..].as_mut().into()]);
    assert_eq!(error, ClipError::Count { required: 2, given: 1 });
    assert_eq!((a, b[0].to_f32(), prepared.history().steps()), ([3.0, 0.0], 4.0, 0));
    let state = History::default();
    assert!(prepared.restore_history(state).is_ok());

    let mut p = [1.0f32, 1.0];
    let like = [GradMut::new("a", &mut a).parameter(&p[..]).shape(&[2, 1])];
    let mut agc = cpu::prepare(&like, &Clip::agc(0.1, Units::OutputFirst)).unwrap();
    assert!(matches!(agc.clip([&mut a[..]]), Err(ClipError::Combination { .. })));
    assert!(agc.clip_with_parameters([(&mut a[..], &p[..1])]).unwrap_err().to_string().contains("parameter"));
    p[0] = 2.0;
    agc.clip_with_parameters([(&mut a[..], &p[..])]).unwrap();
    assert!(agc.report().is_some());
}

/// Also of `f64`, which has records of its own.
#[test]
fn doubles() {
    let mut zeros = [0.0; 2];
    let like = [GradMut::f64("w", &mut zeros)];
    let mut prepared = cpu::prepare(&like, &Clip::global_norm(1.0)).unwrap();
    for step in 1..3 {
        let (mut w, mut expected) = ([3.0, 4.0], [3.0, 4.0]);
        let report = cpu::clip(&mut [GradMut::f64("w", &mut expected)], &Clip::global_norm(1.0)).unwrap();
        prepared.clip([&mut w[..]]).unwrap();
        assert_eq!((w, prepared.norm()), (expected, report.norm()));
        assert_eq!(prepared.report().unwrap().step, step);
    }
}

/// After the first step nothing is allocated by the thread that calls, but what rayon's queue takes for work of other threads:
/// a block every few dozen jobs.
#[test]
fn nothing_is_allocated_a_step() {
    let groups = [Group::new("a", 0.5), Group::excluded("b")];
    let clips = [
        Clip::global_norm(1.0),
        Clip::per_tensor_norm(0.1).adapt(Adapt::Average { factor: 0.9, decay: 0.5 }),
        Clip::per_group_norm(0.1).total(0.3).loss_scale(LossScale::default()),
        Clip::per_unit_norm(0.1, Units::OutputFirst),
        Clip::per_row_norm(0.1),
        Clip::value(0.01),
    ];
    for (lens, most) in [(vec![1000; 40], 0), (vec![100_000; 12], 8)] {
        let mut tensors: Vec<Vec<f32>> = lens.iter().map(|&n| uniform(n, n as u64)).collect();
        for clip in clips {
            let like: Vec<GradMut<'_>> = tensors
                .iter_mut()
                .enumerate()
                .map(|(i, v)| {
                    let rows = v.len() as u64 / 50;
                    let grad = GradMut::new(format!("t{i}"), v).shape(&[rows, 50]);
                    match clip.scope {
                        gradclip::Scope::Group => grad.group(&groups[i % 2]),
                        _ => grad,
                    }
                })
                .collect();
            let mut prepared = cpu::prepare(&like, &clip).unwrap();
            drop(like);
            let mut step = || prepared.clip(tensors.iter_mut().map(|v| &mut v[..])).unwrap();
            step();
            step();
            let made = allocations(|| (0..20).for_each(|_| step()));
            assert!(made <= most, "{made} allocations in 20 steps of {} tensors, {clip:?}", lens.len());
        }
    }
}

/// Units and rows of which nothing but their factors is asked for are clipped as those whose every record is, whatever is kept
/// next to what is not, exactly at the threshold or not finite.
#[test]
fn units_without_records_of_their_own() {
    let units = [Scope::Row, Scope::Unit(Units::OutputFirst), Scope::Unit(Units::over(&[0]))];
    let norms = [NormType::One, NormType::Two, NormType::Inf];
    let clips = units.iter().flat_map(|&scope| {
        norms.into_iter().flat_map(move |norm| {
            let at = |threshold: f64| Clip::global_norm(threshold).scope(scope).norm_type(norm);
            let clip = at(4.0);
            [
                clip,
                clip.unscale(0.75),
                clip.never_above(false).on_non_finite(NonFinite::Sanitize),
                clip.on_non_finite(NonFinite::Zero).eps(0.5),
                clip.on_non_finite(NonFinite::Keep).rule(Rule::Rms),
                clip.rule(Rule::Sign),
                clip.rule(Rule::Normalize),
                clip.total(100.0),
                clip.adapt(Adapt::Average { factor: 0.9, decay: 0.5 }),
                at(1e-38),
                at(f64::INFINITY),
            ]
        })
    });
    for clip in clips.filter(|clip| clip.validate().is_ok()) {
        let (mut history, mut prepared) = (History::default(), None::<Prepared>);
        for step in 0..3u64 {
            let mut expected = [uniform(6000 * 3, step), uniform(6000 * 2, step + 9)];
            for (i, value) in expected.iter_mut().flatten().enumerate() {
                *value *= if i % 7 == 0 { 1.0 } else { 3.0 };
            }
            // A norm of exactly the threshold, its neighbours, nothing at all, and what is not finite.
            for (row, value) in [4.0f32, 4.0f32.next_up(), 4.0f32.next_down(), 0.0, 1e-38].iter().enumerate()
            {
                expected[0][row * 3..][..3].copy_from_slice(&[*value, 0.0, 0.0]);
                expected[1][row * 2..][..2].fill(0.0);
            }
            if step == 1 {
                (expected[0][5000 * 3], expected[1][77 * 2]) = (f32::NAN, f32::INFINITY);
            }
            let mut given = expected.clone();
            let mut grads: Vec<GradMut<'_>> = expected
                .iter_mut()
                .map(|v| (v.len() as u64 / 6000, v))
                .map(|(n, v)| GradMut::new("t", v).shape(&[6000, n]))
                .collect();
            let prepared = prepared.get_or_insert_with(|| cpu::prepare(&grads, &clip).unwrap());
            let trace = cpu::clip_traced_with(&mut grads, &clip, &mut history).unwrap();
            prepared.clip(given.iter_mut().map(|v| &mut v[..])).unwrap();
            assert_eq!(common::bits(&given), common::bits(&expected), "{clip:?}, step {step}");
            assert_eq!(
                format!("{:?}", prepared.report().unwrap()),
                format!("{:?}", trace.report),
                "{clip:?}"
            );
            assert_eq!(*prepared.history(), history, "{clip:?}");
        }
    }
}

/// Many rows, clipped block by block, are clipped as those of which every record is kept: of several tensors and types, next to
/// tensors that are left out, with blocks that are not full, kept, clipped or not finite.
#[test]
fn many_rows_are_clipped_as_few() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let rows = 5 * 4096 + 77u64;
    let clips = [Scope::Row, Scope::Unit(Units::OutputFirst)].into_iter().flat_map(|scope| {
        let clip = Clip::global_norm(2.0).scope(scope).lossy_unscale(true);
        let policies =
            [NonFinite::Skip, NonFinite::Zero, NonFinite::Sanitize, NonFinite::Nan, NonFinite::Keep];
        let clips = policies.map(|policy| clip.on_non_finite(policy));
        let others = [
            clip.unscale(0.75),
            clip.norm_type(NormType::One),
            clip.rule(Rule::Sign),
            clip.rule(Rule::Value),
        ];
        clips.into_iter().chain(others)
    });
    for clip in clips.filter(|clip| clip.validate().is_ok()) {
        let (mut history, mut prepared) = (History::default(), None::<Prepared>);
        for step in 0..3u64 {
            let widths = [3, 70, 1, 2];
            let mut single: Vec<Vec<f32>> =
                (step..).zip(widths).map(|(seed, n)| uniform((rows * n) as usize, seed)).collect();
            for (i, value) in single.iter_mut().flatten().enumerate() {
                *value *= if step == 2 || i % 5000 < 300 { 1e-3 } else { 0.5 };
            }
            if step == 1 {
                (single[0][4096 * 3], single[1][77 * 70], single[2][9999]) =
                    (f32::NAN, f32::INFINITY, f32::MAX);
            }
            let mut halves: Vec<f16> = single[3].iter().map(|&v| f16::from_f32(v)).collect();
            let (mut given, mut given_halves) = (single.clone(), halves.clone());
            let shape = |i: usize| [rows, widths[i]];
            let mut grads: Vec<GradMut<'_>> = Vec::new();
            let (left, right) = single.split_at_mut(3);
            for (i, v) in left.iter_mut().enumerate() {
                grads.push(GradMut::new("t", v).shape(&shape(i)));
            }
            grads.push(
                GradMut::new("left out", &mut right[0]).shape(&shape(3)).group(&Group::excluded("none")),
            );
            grads.push(GradMut::f16("halves", &mut halves).shape(&shape(3)));
            let prepared =
                prepared.get_or_insert_with(|| pool.install(|| cpu::prepare(&grads, &clip)).unwrap());
            let trace = cpu::clip_traced_with(&mut grads, &clip, &mut history).unwrap();
            let slices = given.iter_mut().map(|v| SliceMut::from(&mut v[..]));
            let all = slices.chain([SliceMut::from(&mut given_halves[..])]);
            pool.install(|| prepared.clip(all)).unwrap();
            assert!(common::bits(&given) == common::bits(&single), "{clip:?}, step {step}");
            let bits = |halves: &[f16]| halves.iter().map(|h| h.to_bits()).collect::<Vec<_>>();
            assert!(bits(&given_halves) == bits(&halves), "{clip:?}, step {step}");
            assert_eq!(
                format!("{:?}", prepared.report().unwrap()),
                format!("{:?}", trace.report),
                "{clip:?}"
            );
            assert_eq!(*prepared.history(), history, "{clip:?}");
        }
    }
}

/// Only gradients are unscaled: a parameter that twice its size would overflow stays finite.
#[test]
fn parameters_are_not_unscaled() {
    let (mut g, p) = ([1.0f32], [3e38f32]);
    let clip = Clip::agc(0.1, Units::OutputFirst).unscale(2.0);
    let like = [GradMut::new("g", &mut g).parameter(&p[..]).shape(&[1])];
    let mut prepared = cpu::prepare(&like, &clip).unwrap();
    prepared.clip_with_parameters([(&mut g[..], &p[..])]).unwrap();
    assert_eq!((prepared.report().unwrap().non_finite(), g), (0, [2.0]));
}

/// How many threads there are changes no bit of any record, whatever is cut among them.
#[test]
fn threads_change_nothing() {
    let lens = [600_000, 3, 40_000, 40_000, 16_385];
    let tensors: Vec<Vec<f32>> = lens.iter().map(|&n| data(Distribution::Alternating, n, n as u64)).collect();
    let clips = [
        Clip::global_norm(1.0),
        Clip::per_tensor_norm(1.0).norm_type(NormType::One).total(1.0),
        Clip::per_unit_norm(1.0, Units::OutputFirst),
        Clip::per_unit_norm(1.0, Units::OutputLast).norm_type(NormType::P(2.5)),
    ];
    for clip in clips {
        let traced = |threads: usize| {
            let mut own = tensors.clone();
            let columns = |n: usize| if n.is_multiple_of(5) { 5 } else { 1 };
            let shape = |v: &[f32]| [v.len() as u64 / columns(v.len()), columns(v.len())];
            let mut grads: Vec<GradMut<'_>> =
                own.iter_mut().map(|v| (shape(v), v)).map(|(s, v)| GradMut::new("t", v).shape(&s)).collect();
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let trace = pool.install(|| cpu::clip_traced(&mut grads, &clip)).unwrap();
            (format!("{trace:?}"), bits(&own))
        };
        let alone = traced(1);
        for threads in 2..=4 {
            let shared = traced(threads);
            assert!(shared == alone, "{threads} threads, {clip:?}");
        }
    }
}

/// Where there was no step there is nothing to tell, whatever is clipped; nor of units and rows, as in reports.
#[test]
fn nothing_is_told_before_the_first_step() {
    let mut g = [3.0f32, 4.0];
    let clips = [
        Clip::global_norm(1.0),
        Clip::per_tensor_norm(1.0),
        Clip::per_unit_norm(1.0, Units::OutputFirst),
        Clip::per_unit_norm(1.0, Units::OutputFirst).total(1.0),
        Clip::per_row_norm(1.0),
    ];
    for clip in clips {
        let mut prepared = cpu::prepare(&[GradMut::new("g", &mut g).shape(&[1, 2])], &clip).unwrap();
        assert_eq!((prepared.norm(), prepared.coefficient()), (None, None), "{clip:?}");
        prepared.clip([&mut { g }[..]]).unwrap();
        let report = prepared.report().unwrap();
        assert_eq!(
            (prepared.norm(), prepared.coefficient()),
            (report.norm(), report.coefficient()),
            "{clip:?}"
        );
    }
}

/// Limits of units and rows that there are not adapt to nothing.
#[test]
fn adaptive_limits_without_a_segment() {
    let adapt = Adapt::Quantile { quantile: 0.5, rate: 0.2 };
    for clip in
        [Clip::per_row_norm(1.0).adapt(adapt), Clip::per_unit_norm(1.0, Units::OutputFirst).adapt(adapt)]
    {
        for mut grads in [vec![], vec![GradMut::new("g", &mut [][..]).shape(&[0, 4])]] {
            let report = cpu::clip_with(&mut grads, &clip, &mut History::default());
            assert!(report.is_ok_and(|report| !report.clipped()), "{clip:?}");
        }
    }
}
