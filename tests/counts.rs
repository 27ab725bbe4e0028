//! Non-finite elements of gradients and of parameters, in every scope: the report's total, that of its
//! tensors, those of the segments, and the first name agree, on both paths.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Distribution, Placing, Random, SCOPES, data, gpu, named, on_cpu, shaped, traced};
use gradclip::cpu::{self, GradMut};
use gradclip::layout::{NONE, Outcome};
use gradclip::{Clip, NonFinite, NormType, Scope, Units};

const SHAPES: [[u64; 2]; 4] = [[6, 5], [6, 3000], [6, 64], [6, 1]];

#[test]
fn totals_segments_and_names_agree() {
    let gpu = gpu();
    let mut random = Random(9);
    for turn in 0..24u64 {
        let spoilt = |len: usize, random: &mut Random, seed: u64| {
            let mut values = data(Distribution::Uniform(1.0), len, seed);
            for _ in 0..random.bits() % 3 {
                let at = random.bits() as usize % len;
                values[at] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][random.bits() as usize % 3];
            }
            values
        };
        let lens: Vec<usize> = SHAPES.iter().map(|s| (s[0] * s[1]) as usize).collect();
        let grads: Vec<Vec<f32>> = lens.iter().map(|&n| spoilt(n, &mut random, turn)).collect();
        let parameters: Vec<Vec<f32>> = lens.iter().map(|&n| spoilt(n, &mut random, turn + 99)).collect();
        let count = |t: &[f32]| t.iter().filter(|x| !x.is_finite()).count() as u64;
        let mut set = shaped(&SHAPES, |i, _| grads[i].clone());
        set.iter_mut().zip(&parameters).for_each(|(tensor, p)| tensor.parameter = Some(p.into()));
        for scope in SCOPES {
            let agc = turn % 2 == 0 && scope != Scope::Row;
            let norm = [NormType::Two, NormType::One, NormType::Inf, NormType::P(3.0)][turn as usize / 2 % 4];
            let policies = [NonFinite::Skip, NonFinite::Sanitize, NonFinite::Zero, NonFinite::Nan];
            let policy = policies[turn as usize / 3 % 4];
            let clip = if agc {
                Clip::agc(0.01, Units::OutputFirst).scope(scope)
            } else {
                Clip::global_norm(1.0).scope(scope)
            };
            let clip = clip.norm_type(norm).on_non_finite(policy);
            let own = |i: usize| count(&grads[i]) + if agc { count(&parameters[i]) } else { 0 };
            let total: u64 = (0..4).map(own).sum();
            let first = (0..4).find(|&i| own(i) > 0).map(|i| format!("t{i}"));

            let (trace, _) = traced(&set, &clip).unwrap();
            let check = |report: &gradclip::Report, outcomes: &[Outcome], what: &str| {
                let what = format!("{what}, turn {turn}: {clip:?}");
                assert_eq!(report.non_finite(), total, "{what}");
                assert_eq!(report.first_non_finite().map(str::to_owned), first, "{what}");
                for (i, t) in report.tensors.iter().enumerate() {
                    assert_eq!(u64::from(t.non_finite), own(i), "{what}");
                    let parameters = if agc { count(&parameters[i]) } else { 0 };
                    assert_eq!(u64::from(t.non_finite_parameters), parameters, "{what}");
                }
                assert_eq!(outcomes.iter().map(|o| u64::from(o.non_finite)).sum::<u64>(), total, "{what}");
                let least = outcomes.iter().map(|o| o.first_non_finite).min().unwrap();
                let named = (least != NONE).then(|| format!("t{least}"));
                assert_eq!(named, first, "{what}");
                for outcome in outcomes {
                    assert_eq!(outcome.non_finite > 0, outcome.first_non_finite != NONE, "{what}");
                }
                let of_segments: u64 = report.segments.iter().map(|s| u64::from(s.non_finite)).sum();
                assert!(report.segments.is_empty() || of_segments == total, "{what}");
            };
            check(&trace.report, &trace.outcomes, "CPU");
            // The first tensor of each row, from its own elements.
            if scope == Scope::Row {
                for (row, outcome) in trace.outcomes.iter().enumerate() {
                    let of = |i: usize| {
                        let n = SHAPES[i][1] as usize;
                        count(&grads[i][row * n..(row + 1) * n])
                    };
                    let want = (0..4).find(|&i| of(i) > 0).map_or(NONE, |i| i as u32);
                    assert_eq!(outcome.first_non_finite, want, "row {row}, turn {turn}");
                }
            }
            let Some(gpu) = &gpu else { continue };
            let placed = gpu.place(&set, Placing::APART);
            let pass = gpu.clipper.prepare(&placed.grads, &clip).unwrap();
            check(&gpu.run(&pass), &gpu.read(pass.outcomes()), &gpu.name);
        }
    }
}

/// TRIED T1: a parameter that is not finite is an element like one of the gradient.
#[test]
fn a_parameter_that_is_not_finite_is_told() {
    let parameters = [f32::NAN, 1.0, 2.0, f32::INFINITY];
    let mut g = [300.0f32, 400.0, 3.0, 4.0];
    let grad = GradMut::new("w", &mut g).shape(&[2, 2]).parameter(&parameters[..]);
    let report = cpu::clip(&mut [grad], &Clip::agc(0.01, Units::OutputFirst)).unwrap();
    assert_eq!((report.non_finite(), report.first_non_finite()), (2, Some("w")));
    assert_eq!((report.tensors[0].non_finite, report.tensors[0].non_finite_parameters), (2, 2));
    assert_eq!(g, [300.0, 400.0, 3.0, 4.0]);
}

/// A tensor's norm is infinite or, where an element is NaN, NaN; under `Sanitize` that of its other elements.
#[test]
fn norms_of_tensors_that_are_not_finite() {
    let tensors = [vec![3.0f32, f32::NEG_INFINITY, 4.0], vec![f32::NAN, f32::INFINITY, 2.0], vec![1.0]];
    let gpu = gpu();
    for scope in [Scope::Global, Scope::Tensor] {
        for (policy, wanted) in [
            (NonFinite::Skip, [f64::INFINITY, f64::NAN, 1.0]),
            (NonFinite::Zero, [f64::INFINITY, f64::NAN, 1.0]),
            (NonFinite::Nan, [f64::INFINITY, f64::NAN, 1.0]),
            (NonFinite::Sanitize, [5.0, 2.0, 1.0]),
        ] {
            let clip = Clip::global_norm(10.0).scope(scope).on_non_finite(policy);
            let check = |report: &gradclip::Report, what: &str| {
                let norms: Vec<f64> = report.tensors.iter().map(|t| t.norm).collect();
                // NaN is not equal to itself, but it prints alike.
                assert_eq!(format!("{norms:?}"), format!("{wanted:?}"), "{what}: {clip:?}");
            };
            check(&on_cpu(&tensors, &clip).0, "CPU");
            let double = |t: &Vec<f32>| t.iter().map(|&x| x.into()).collect::<Vec<f64>>();
            let mut own = named(tensors.iter().map(double));
            check(&cpu::clip(&mut common::grads(&mut own), &clip).unwrap(), "f64");
            if let Some(gpu) = &gpu {
                check(&gpu.clip(&tensors, &clip).0, &gpu.name);
            }
        }
    }
}
