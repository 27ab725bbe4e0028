//! One gradient set through the CPU path and through f64 arithmetic, which shares nothing with it.

use gradclip::cpu::{self, Trace};
use gradclip::{NonFinite, NormType, Rule};

use crate::check::steps;
use crate::check::sums::Sums;
use crate::check::training::Training;
use crate::failure::Failure;
use crate::inputs::Case;
use crate::oracle::decision::{
    APPLIED_ONCE, BELOW, Changes, Expected, LIMIT, coefficient, exceeds, most, norm_of, poisoned, quotient,
};
use crate::oracle::in_f64::{Exact, Measured, rounded};
use crate::tally::{Findings, Tally, ulp};
use crate::tensor::Element;

/// Of what is rounded once: half an ulp, and f64's own error.
const ROUNDED: f64 = 0.501;

pub(crate) fn tallies() -> Vec<Tally> {
    ["norm", "power", "coefficient", "apply", "units", "rules", "steps", "accumulate"]
        .map(Tally::new)
        .to_vec()
}

/// Checks one case. Units are the norms of units and rows, rules the limits of any rule but the norm
/// itself and what becomes of the elements.
pub(crate) fn check(name: &str, mut case: Case, tallies: &mut [Tally]) -> Result<(), Failure> {
    let before = case.clone();
    let clip = case.clip;
    let trace = cpu::clip_traced(&mut case.grads(), &clip)?;
    let exact = Exact::of(&before);
    let mut found = [Findings::default(); 6];
    let [norm, power, coefficient, apply, units, rules] = &mut found;
    let plain = clip.rule == Rule::Norm;
    let norms = match clip.norm {
        NormType::P(_) => power,
        _ if case.cut() => units,
        _ => norm,
    };
    check_norms(&before, &exact, &trace, norms);
    coefficients(&before, &exact, &trace, if plain { coefficient } else { &mut *rules });
    elements(&before, &case, &exact, &trace, if plain { apply } else { rules });
    for (tally, findings) in tallies.iter_mut().zip(&found).filter(|(_, f)| f.compared > 0) {
        tally.add(name, findings);
    }
    Ok(())
}

/// Checks an optimiser's steps.
pub(crate) fn check_training(training: &Training, tallies: &mut [Tally]) -> Result<(), Failure> {
    add(tallies, "steps", &training.to_string(), &steps::on_cpu(training)?);
    Ok(())
}

/// Checks sums of micro-batches.
pub(crate) fn check_sums(sums: &Sums, tallies: &mut [Tally]) -> Result<(), Failure> {
    add(tallies, "accumulate", &sums.to_string(), &sums.on_cpu()?);
    Ok(())
}

fn add(tallies: &mut [Tally], what: &str, name: &str, findings: &Findings) {
    tallies.iter_mut().filter(|t| t.what == what).for_each(|t| t.add(name, findings));
}

/// Norms of tensors and segments.
fn check_norms(case: &Case, exact: &Exact, trace: &Trace, findings: &mut Findings) {
    let clip = &case.clip;
    let mut check = |exact: f64, reported: f64| {
        let error = match (exact.is_finite(), exact.is_nan() && reported.is_nan()) {
            (true, _) => (reported - exact).abs() / ulp(Element::F32, exact),
            (false, true) => 0.0,
            // Infinite.
            (false, false) => f64::from(u8::from(reported != exact)),
        };
        findings.value(error, most(clip.norm));
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
        let most = if agc { LIMIT } else { ROUNDED } + if case.below() { ROUNDED } else { 0.0 };
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
        findings
            .value(error, ROUNDED + if agc { LIMIT } else { 0.0 } + if case.below() { BELOW } else { 0.0 });
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
fn elements(before: &Case, after: &Case, exact: &Exact, trace: &Trace, findings: &mut Findings) {
    let changes = Changes::new(before, exact, trace);
    for (t, (before, after)) in before.tensors.iter().zip(&after.tensors).enumerate() {
        let element = before.data.element();
        for i in 0..before.data.len() {
            match changes.element(t, i) {
                Expected::Kept | Expected::Skipped => {
                    let same = before.data.bits(i) == after.data.bits(i);
                    findings.value(if same { 0.0 } else { f64::INFINITY }, 0.0);
                }
                Expected::Value(expected, most) => {
                    let once = if changes.below() { 1.01 } else { APPLIED_ONCE };
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
