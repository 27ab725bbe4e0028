//! `f64` gradients that are not finite, or become so, or lie at the ends of the range; what is refused; and
//! that a decision made apart is the same.

#![allow(clippy::unwrap_used)]

use gradclip::cpu::{self, GradMut, GradRef, Moments, StepMut, SumMut};
use gradclip::{Adapt, Clip, ClipError, History, LossScale, NonFinite, NormType, Report, Rule, Sgd, Units};
use half::{bf16, f16};

fn one(g: &[f64], how: &Clip) -> (Vec<f64>, Report) {
    let mut own = g.to_vec();
    let report = cpu::clip(&mut [GradMut::f64("g", &mut own)], how).unwrap();
    (own, report)
}

const INF: f64 = f64::INFINITY;

#[test]
fn every_policy_does_what_it_says() {
    let g = [3.0, f64::NAN, 4.0, -INF];
    let how = |policy| Clip::global_norm(1.0).on_non_finite(policy);
    let bits = |g: &[f64]| g.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let (own, report) = one(&g, &how(NonFinite::Skip));
    assert_eq!(bits(&own), bits(&g));
    let segment = &report.segments[0];
    assert!(segment.skipped && !segment.clipped && !segment.changed && segment.norm.is_nan());
    assert_eq!((report.non_finite(), report.first_non_finite(), segment.coefficient), (2, Some("g"), 1.0));
    let (own, report) = one(&g, &how(NonFinite::Zero));
    assert_eq!((own, report.coefficient()), (vec![0.0; 4], Some(0.0)));
    let (own, report) = one(&g, &how(NonFinite::Nan));
    assert!(own.iter().all(|x| x.is_nan()) && report.coefficient().unwrap().is_nan());
    let (own, report) = one(&g, &how(NonFinite::Sanitize));
    assert_eq!((own, report.norm()), (vec![3.0 * 0.2, 0.0, 4.0 * 0.2, 0.0], Some(5.0)));
    // Nothing to clip, and yet two elements to remove.
    let (own, report) = one(&g, &Clip::global_norm(9.0).on_non_finite(NonFinite::Sanitize));
    assert_eq!((own, report.non_finite()), (vec![3.0, 0.0, 4.0, 0.0], 2));
    // Value clipping keeps: infinities become V, NaN stays.
    let (own, report) = one(&[INF, -INF, f64::NAN, 0.1, -9.0], &Clip::value(0.5));
    assert_eq!(own[..2], [0.5, -0.5]);
    assert!(own[2].is_nan() && own[3..] == [0.1, -0.5] && report.non_finite() == 3);
    let (_, report) = one(&[1.0, INF], &how(NonFinite::Skip));
    assert_eq!(report.norm(), Some(INF));
}

#[test]
fn a_total_spreads_what_is_not_finite() {
    let (mut a, mut b) = ([3.0, 4.0], [1.0, INF]);
    let mut grads = [GradMut::f64("a", &mut a), GradMut::f64("b", &mut b)];
    let how = Clip::per_tensor_norm(1.0).total(0.5).on_non_finite(NonFinite::Zero);
    let report = cpu::clip(&mut grads, &how).unwrap();
    assert_eq!((a, b), ([0.0; 2], [0.0; 2]));
    assert_eq!(report.segments[0].coefficient, 0.0);
    let (mut a, mut b) = ([3.0, 4.0], [1.0, INF]);
    let mut grads = [GradMut::f64("a", &mut a), GradMut::f64("b", &mut b)];
    cpu::clip(&mut grads, &Clip::per_tensor_norm(1.0).on_non_finite(NonFinite::Zero)).unwrap();
    assert_eq!((a, b), ([3.0 * 0.2, 4.0 * 0.2], [0.0; 2]));
}

/// The last element that unscaling leaves finite, and the next: by hardware for f64, whose product is
/// rounded once; for f32 at (2^25 - 1) 2^103, from where nearest rounding gives infinity.
#[test]
fn unscaling_overflows_at_the_last_bit() {
    for unscale in [2.0, 3.0, 1.0 + f64::EPSILON, 1e10, 65536.0 / 3.0] {
        let mut last = f64::MAX / unscale;
        while (last * unscale).is_infinite() {
            last = last.next_down();
        }
        while (last.next_up() * unscale).is_finite() {
            last = last.next_up();
        }
        let sanitize = Clip::measure().unscale(unscale).on_non_finite(NonFinite::Sanitize);
        let (own, report) = one(&[last, 1.0], &sanitize);
        assert_eq!((own, report.non_finite()), (vec![last * unscale, unscale], 0), "{unscale}");
        let (own, report) = one(&[last.next_up(), 1.0], &sanitize);
        assert_eq!(
            (own, report.non_finite(), report.norm()),
            (vec![0.0, unscale], 1, Some(unscale)),
            "{unscale}"
        );
        let skip = Clip::global_norm(1.0).unscale(unscale);
        let (own, report) = one(&[last.next_up(), 1.0], &skip);
        assert_eq!((own, report.norm()), (vec![last.next_up(), 1.0], Some(INF)), "{unscale}");
    }
    // 2^127 * (2 - 2^-24) is the middle between the largest f32 and 2^128, and goes up.
    let middle = 2.0 - 2f64.powi(-24);
    for (unscale, count) in [(middle.next_down(), 0), (middle, 1), (middle.next_up(), 1)] {
        let (mut single, mut double) = ([2f32.powi(127), 1.0], [1.0f64]);
        let mut grads = [GradMut::new("single", &mut single), GradMut::f64("double", &mut double)];
        let how = Clip::measure().unscale(unscale).on_non_finite(NonFinite::Sanitize);
        let report = cpu::clip(&mut grads, &how).unwrap();
        assert_eq!(report.non_finite(), count, "{unscale:?}");
        assert_eq!(single[0], if count == 0 { f32::MAX } else { 0.0 });
    }
}

#[test]
fn finite_gradients_stay_finite() {
    // Scaled up to the target, rounded up beyond the largest, or pushed above their own type's.
    let (own, _) = one(&[1.0, 1.0], &Clip::normalize(f64::MAX).norm_type(NormType::P(0.5)));
    assert!(own.iter().all(|x| x.is_finite()));
    let (mut h, mut b, mut s, mut d) = ([f16::from_f32(100.0)], [bf16::from_f32(1.0)], [1.0f32], [1.0f64]);
    let mut grads = [
        GradMut::f16("h", &mut h),
        GradMut::bf16("b", &mut b),
        GradMut::new("s", &mut s),
        GradMut::f64("d", &mut d),
    ];
    cpu::clip(&mut grads, &Clip::per_tensor_norm(1e-3).rule(Rule::Sign)).unwrap();
    cpu::clip(&mut grads, &Clip::normalize(1e300)).unwrap();
    assert_eq!((h[0], b[0], s[0]), (f16::MAX, bf16::MAX, f32::MAX));
    assert!((d[0] / 1e300 - 0.5).abs() < 1e-3, "{d:?}");
    let (mut h, mut d) = ([f16::from_f32(-2.0), f16::ZERO], [1e9f64]);
    let mut grads = [GradMut::f16("h", &mut h), GradMut::f64("d", &mut d)];
    cpu::clip(&mut grads, &Clip::sign(1e5)).unwrap();
    assert_eq!((h, d), ([-f16::MAX, f16::ZERO], [1e5]));
}

/// V towards zero in the element's type, and never outside.
#[test]
fn values_are_clamped_inside_their_type() {
    let mut brain = [1.0, -1.0, 0.099].map(bf16::from_f32);
    let mut half = [1e4, -1e4, 0.05].map(f16::from_f32);
    let mut single = [1.0f32, -f32::INFINITY, 0.1];
    let mut double = [1.0f64, -1.0, 0.1];
    let mut grads = [
        GradMut::bf16("b", &mut brain),
        GradMut::f16("h", &mut half),
        GradMut::new("s", &mut single),
        GradMut::f64("d", &mut double),
    ];
    cpu::clip(&mut grads, &Clip::value(0.1)).unwrap();
    assert_eq!(double, [0.1, -0.1, 0.1]);
    // Rounded to nearest, each would be above 0.1.
    assert_eq!(brain[..2], [bf16::from_f32(0.099_609_375), -bf16::from_f32(0.099_609_375)]);
    assert!(half[..2].iter().all(|x| x.to_f64().abs() <= 0.1 && x.to_f64().abs() > 0.0999));
    assert_eq!(single, [0.1f32.next_down(), -(0.1f32.next_down()), 0.1f32.next_down()]);
    let (own, _) = one(&[INF, -5.0], &Clip::value(f64::MAX));
    assert_eq!(own, [f64::MAX, -5.0]);
}

#[test]
fn the_ends_of_the_range() {
    // A norm above f64::MAX clips, and is reported as infinite without an element that is.
    let (own, report) = one(&[1.5e308; 100], &Clip::global_norm(1.0));
    assert_eq!((report.norm(), report.non_finite(), report.clipped()), (Some(INF), 0, true));
    assert!(own.iter().all(|x| (x - 0.1).abs() < 1e-16), "{}", own[0]);
    // Subnormals count.
    let (own, report) = one(&[3e-320, 4e-320], &Clip::global_norm(5e-321));
    assert!((report.norm().unwrap() / 5e-320 - 1.0).abs() < 1e-3);
    assert!((own[1] / 4e-321 - 1.0).abs() < 2e-3, "{own:?}");
    // A coefficient of 1e-620 / 1e308, too small for an f64, and one too large.
    let (own, _) = one(&[1e308], &Clip::global_norm(5e-324));
    assert_eq!(own, [5e-324]);
    let (own, report) = one(&[5e-324], &Clip::normalize(1e308));
    assert!((own[0] / 1e308 - 1.0).abs() < 1e-15 && report.coefficient() == Some(INF));
    let (own, report) = one(&[], &Clip::global_norm(1.0));
    assert_eq!((own, report.norm()), (vec![], Some(0.0)));
    let (own, _) = one(&[0.0, -0.0], &Clip::normalize(1.0));
    assert_eq!(own, [0.0, 0.0]);
}

#[test]
fn histories_count_and_do_nothing_else() {
    let mut history = History::default();
    for (i, x) in [2.0, 0.5, INF, 3.0].into_iter().enumerate() {
        let mut g = [x];
        let report = cpu::clip_with(&mut [GradMut::f64("g", &mut g)], &Clip::global_norm(1.0), &mut history);
        let report = report.unwrap();
        assert_eq!(report.step, i as u64 + 1);
        assert_eq!(report.clipped_segments, u64::from(x > 1.0 && x < INF));
    }
    let mut g = [0.1];
    let report =
        cpu::clip_with(&mut [GradMut::f64("g", &mut g)], &Clip::global_norm(1.0), &mut history).unwrap();
    assert_eq!((report.clipped_steps, report.skipped_steps, history.steps()), (2, 1, 5));
}

#[test]
fn what_needs_a_memory_of_f32_is_refused() {
    let adaptive = Clip::global_norm(1.0).adapt(Adapt::Average { factor: 1.5, decay: 0.9 });
    for how in [adaptive, Clip::global_norm(1.0).loss_scale(LossScale::default())] {
        let mut g = [3.0, 4.0];
        let mut history = History::default();
        let refused = cpu::clip_with(&mut [GradMut::f64("g", &mut g)], &how, &mut history);
        assert!(matches!(&refused, Err(ClipError::Combination { .. })), "{refused:?}");
        assert!(refused.unwrap_err().to_string().contains("f64"));
        assert_eq!((g, history), ([3.0, 4.0], History::default()));
    }
}

/// Parameters that are not finite count like gradients.
#[test]
fn parameters_that_are_not_finite() {
    let (mut g, p) = ([300.0, 400.0], [1.0, f64::NAN]);
    let how = Clip::agc(0.01, Units::OutputFirst);
    let report = cpu::clip(&mut [GradMut::f64("g", &mut g).shape(&[2]).parameter(&p[..])], &how).unwrap();
    assert_eq!((g, report.non_finite(), report.first_non_finite()), ([300.0, 400.0], 1, Some("g")));
    let how = how.scope(gradclip::Scope::Tensor);
    let report = cpu::clip(&mut [GradMut::f64("g", &mut g).parameter(&p[..])], &how).unwrap();
    assert!(report.segments[0].skipped && report.segments[0].non_finite == 1);
}

/// A decision made apart and applied piece by piece leaves the same bits, and norms taken so are the same.
#[test]
fn decisions_and_norms_in_pieces_are_the_same() {
    let value = |i: u64| ((i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11) as f64 / 2f64.powi(52) - 1.0) * 3.0;
    let a: Vec<f64> = (0..100_000).map(value).collect();
    let b: Vec<f32> = (5..40_005).map(|i| value(i) as f32).collect();
    let shapes = [[1000u64, 100], [1000, 40]];
    for how in [
        Clip::global_norm(0.7),
        Clip::per_unit_norm(0.7, Units::over(&[0])).total(0.1),
        Clip::per_row_norm(0.7),
        Clip::value(0.7).unscale(0.9),
    ] {
        let (mut whole_a, mut whole_b) = (a.clone(), b.clone());
        let mut grads = [
            GradMut::f64("a", &mut whole_a).shape(&shapes[0]),
            GradMut::new("b", &mut whole_b).shape(&shapes[1]),
        ];
        let report = cpu::clip(&mut grads, &how).unwrap();
        let refs = [GradRef::new("a", &a[..]).shape(&shapes[0]), GradRef::new("b", &b[..]).shape(&shapes[1])];
        let decision = cpu::decide(&refs, &how, &mut History::default()).unwrap();
        assert_eq!(decision.report(), &report);
        let (mut own_a, mut own_b) = (a.clone(), b.clone());
        for (i, piece) in own_a.chunks_mut(33_333).enumerate() {
            decision.apply(0, i as u64 * 33_333, piece);
        }
        own_b.chunks_mut(7).enumerate().for_each(|(i, piece)| decision.apply(1, i as u64 * 7, piece));
        assert!(decision.changes(0) && decision.changes(1) && !decision.changes(2));
        assert!(own_a == whole_a && own_b == whole_b, "{how:?}");
    }
    for kind in [NormType::One, NormType::Two, NormType::Inf] {
        let (mut a, mut b) = (a.clone(), b.clone());
        let mut norm = cpu::Norm::f64(kind);
        norm.add(&b[..]);
        a.chunks(16_384).for_each(|piece| norm.add(piece));
        let mut grads = [GradMut::f64("a", &mut a), GradMut::new("b", &mut b)];
        let report = cpu::clip(&mut grads, &Clip::measure().norm_type(kind)).unwrap();
        assert_eq!(Some(norm.norm()), report.norm());
        // The first f64 comes after others, which keep what an f32 norm keeps.
        let mut late = cpu::Norm::new(kind);
        late.add(&b[..]);
        late.add(&a[..]);
        assert!((late.norm() / norm.norm() - 1.0).abs() < 2f64.powi(-26));
        let mut only = cpu::Norm::new(kind);
        only.add(&a[..]);
        let report = cpu::clip(&mut [GradMut::f64("a", &mut a)], &Clip::measure().norm_type(kind)).unwrap();
        assert_eq!(Some(only.norm()), report.norm());
    }
}

#[test]
fn steps_sums_and_traces_are_refused() {
    let (g, mut p) = ([3.0f64, 4.0], [0.0f32; 2]);
    let (mut history, mut moments) = (History::default(), Moments::default());
    let mut steps = [StepMut::new("w", &g[..], &mut p)];
    let refused = cpu::step(&mut steps, &Clip::global_norm(1.0), Sgd::new(0.5), &mut history, &mut moments);
    assert!(refused.unwrap_err().to_string().contains("`w`"));
    let mut sums = [SumMut::new("w", &g[..], &mut p)];
    assert!(cpu::accumulate(&mut sums, true).unwrap_err().to_string().contains("f64"));
    let mut own = g;
    let refused = cpu::clip_traced(&mut [GradMut::f64("g", &mut own)], &Clip::global_norm(1.0));
    assert!(refused.unwrap_err().to_string().contains("trace"));
    assert_eq!((p, own), ([0.0; 2], [3.0, 4.0]));
}

/// Parameters of zeros have the least norm, whatever the gradient; and a gradient of almost nothing has the
/// least divisor.
#[test]
fn adaptive_clipping_has_its_least_norms() {
    let (mut g, p) = ([3.0, 4.0], [0.0; 2]);
    let how = Clip::agc(0.5, Units::OutputFirst).rule(Rule::Agc { eps: 0.01 });
    let report = cpu::clip(&mut [GradMut::f64("g", &mut g).shape(&[2]).parameter(&p[..])], &how).unwrap();
    // 5 to 0.5 * 0.01, with a few roundings.
    assert!((g[0] / 0.003 - 1.0).abs() < 1e-15 && (g[1] / 0.004 - 1.0).abs() < 1e-15, "{g:?}");
    assert_eq!(report.clipped_segments, 1);
    let mut small = [1e-7];
    let how = Clip::agc(1e-5, Units::OutputFirst);
    cpu::clip(&mut [GradMut::f64("g", &mut small).shape(&[1]).parameter(&[0.0][..])], &how).unwrap();
    // 1e-7 * (1e-5 * 1e-3) / 1e-6.
    assert!((small[0] / 1e-9 - 1.0).abs() < 1e-15, "{small:?}");
}

/// Gradients measured as f32 whose elements are written as f64: one product of the same factor, rounded to
/// f64 alone.
#[test]
fn decisions_over_f32_are_applied_to_f64() {
    let g = [3.0f32, -4.0, f32::INFINITY, 0.1];
    let sanitize = |how: Clip| how.on_non_finite(NonFinite::Sanitize);
    for how in [
        sanitize(Clip::global_norm(1.0)),
        sanitize(Clip::global_norm(1.0).never_above(true)),
        Clip::global_norm(1.0).on_non_finite(NonFinite::Zero),
        Clip::value(0.1).unscale(0.3),
        sanitize(Clip::sign(0.5)),
        sanitize(Clip::per_unit_norm(1.0, Units::over(&[]))),
        sanitize(Clip::global_norm(1e30).unscale(1e38)),
    ] {
        let grads = [GradRef::new("g", &g[..]).shape(&[4])];
        let decision = cpu::decide(&grads, &how, &mut History::default()).unwrap();
        let (mut single, mut double) = (g, g.map(f64::from));
        decision.apply(0, 0, &mut single[..]);
        decision.apply(0, 0, &mut double[..]);
        for (s, d) in single.into_iter().zip(double) {
            assert!((d - f64::from(s)).abs() <= 2f64.powi(-23) * d.abs(), "{single:?} {double:?} {how:?}");
        }
    }
}
