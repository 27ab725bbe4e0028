//! One gradient set through the CPU path and through f64 arithmetic, which shares nothing with it.

use gradclip::cpu::Trace;
use gradclip::{NonFinite, NormType, Rule};

use crate::check::Found;
use crate::failure::Failure;
use crate::inputs::Case;
use crate::oracle::decision::{Changes, Expected, coefficient, exceeds, norm_of, poisoned, quotient};
use crate::oracle::in_f64::{Exact, Measured, rounded};
use crate::tally::{Findings, ulp};
use crate::tensor::{Element, Tensor};
use crate::tolerance::{BELOW_ULP, LIMIT_ULP, ONCE_ULP, ROUNDED_ULP, norm_ulp};

/// What is checked.
pub(crate) const WHAT: [&str; 10] =
    ["norm", "power", "coefficient", "apply", "units", "rules", "steps", "accumulate", "coalesce", "private"];

/// Checks one case. Units are the norms of units and rows, rules the limits of any rule but the norm
/// itself and what becomes of the elements.
pub(crate) fn check(case: Case) -> Result<Found, Failure> {
    let clip = case.clip;
    let (trace, after) = case.traced()?;
    let exact = Exact::of(&case);
    let norms = match clip.norm {
        NormType::P(_) => "power",
        _ if case.cut() => "units",
        _ => "norm",
    };
    let plain = clip.rule == Rule::Norm;
    let (mut coefficient, mut apply) = (Findings::default(), Findings::default());
    coefficients(&case, &exact, &trace, &mut coefficient);
    elements(&case, &after, &exact, &trace, &mut apply);
    if !plain {
        apply.join(std::mem::take(&mut coefficient));
    }
    let found = [("coefficient", coefficient), (if plain { "apply" } else { "rules" }, apply)];
    Ok([(norms, check_norms(&case, &exact, &trace))].into_iter().chain(found).collect())
}

/// Norms of tensors and segments.
fn check_norms(case: &Case, exact: &Exact, trace: &Trace) -> Findings {
    let (clip, mut findings) = (&case.clip, Findings::default());
    let mut check = |exact: f64, reported: f64| {
        let error = match (exact.is_finite(), exact.is_nan() && reported.is_nan()) {
            (true, _) => (reported - exact).abs() / ulp(Element::F32, exact),
            (false, true) => 0.0,
            // Infinite.
            (false, false) => f64::from(u8::from(reported != exact)),
        };
        findings.value(error, norm_ulp(clip.norm));
    };
    for (tensor, reported) in case.tensors.iter().zip(&trace.report.tensors) {
        let measured = Measured::of(&tensor.data, clip.unscale, clip.norm);
        let finite = clip.non_finite == NonFinite::Sanitize;
        check(measured.norm(clip.norm, finite) * clip.unscale, reported.norm);
    }
    for (segment, outcome) in exact.segments.iter().chain(&exact.total).zip(&trace.outcomes) {
        check(segment.norm(case), norm_of(outcome));
    }
    for (segment, outcome) in trace.report.segments.iter().zip(&trace.outcomes).filter(|_| !case.cut()) {
        check(norm_of(outcome), segment.norm);
    }
    findings
}

/// Limits against f64, and coefficients against the norms and limits reported beside them.
fn coefficients(case: &Case, exact: &Exact, trace: &Trace, findings: &mut Findings) {
    let agc = matches!(case.clip.rule, Rule::Agc { .. });
    // The sum with eps is rounded to f32, as whoever adds an eps of f32 expects.
    let total = exact.total.as_ref().zip(trace.outcomes.last());
    let total = total.map(|(segment, outcome)| {
        let (norm, limit) = (norm_of(outcome), segment.threshold());
        (segment, if norm > limit { quotient(norm, limit, case, false, rounded) } else { 1.0 })
    });
    for (segment, outcome) in exact.segments.iter().zip(&trace.outcomes) {
        let limit = segment.limit(case);
        let error = distance(Element::F32, outcome.threshold.into(), limit);
        let most = if agc { LIMIT_ULP } else { ROUNDED_ULP } + if case.below() { ROUNDED_ULP } else { 0.0 };
        findings.value(error, most);
        let (norm, over) = (norm_of(outcome), exceeds(case, segment, outcome));
        let own = match poisoned(case, segment) {
            true => filled(segment.policy(case)),
            false => coefficient(segment.rule(case), norm, limit, over, case, rounded),
        };
        let expected = match total.filter(|_| !segment.excluded) {
            None => own,
            Some((whole, _)) if poisoned(case, whole) => filled(case.clip.non_finite),
            Some((_, whole)) => own.min(whole),
        };
        let error = distance(Element::F32, outcome.coefficient.into(), expected);
        let most =
            ROUNDED_ULP + if agc { LIMIT_ULP } else { 0.0 } + if case.below() { BELOW_ULP } else { 0.0 };
        findings.value(error, most);
    }
}

/// The coefficient of what no norm decides.
fn filled(policy: NonFinite) -> f64 {
    match policy {
        NonFinite::Zero => 0.0,
        NonFinite::Nan => f64::NAN,
        _ => 1.0,
    }
}

/// Every element against f64, with norms and limits in f64 too.
fn elements(case: &Case, after: &[Tensor], exact: &Exact, trace: &Trace, findings: &mut Findings) {
    let changes = Changes::new(case, exact, trace);
    for (t, (before, after)) in case.tensors.iter().zip(after).enumerate() {
        let element = before.data.element();
        for i in 0..before.data.len() {
            match changes.element(t, i) {
                Expected::Kept | Expected::Skipped => {
                    let same = before.data.bits(i) == after.data.bits(i);
                    findings.value(if same { 0.0 } else { f64::INFINITY }, 0.0);
                }
                Expected::Value(expected, most) => {
                    let once = if changes.below() { 1.01 } else { ONCE_ULP };
                    let most = if element == Element::F32 { most } else { most.min(once) };
                    findings.value(off(element, after.data.value(i), expected), most);
                }
            }
        }
    }
}

/// Ulp between an element and what it should be, of which what is finite is at most the largest.
fn off(element: Element, got: f64, expected: f64) -> f64 {
    if !expected.is_finite() {
        return if got == expected || (got.is_nan() && expected.is_nan()) { 0.0 } else { f64::INFINITY };
    }
    let expected = expected.clamp(-element.largest(), element.largest());
    (got - expected).abs() / ulp(element, expected)
}

/// Ulp between a scalar and what it should be. The number after the largest is infinity.
fn distance(element: Element, got: f64, expected: f64) -> f64 {
    if expected.is_nan() {
        return f64::from(u8::from(!got.is_nan()));
    }
    let largest = element.largest();
    let unit = ulp(element, expected.abs().min(largest));
    let last = |value: f64| value.clamp(-largest - unit, largest + unit);
    (last(got) - last(expected)).abs() / unit
}
