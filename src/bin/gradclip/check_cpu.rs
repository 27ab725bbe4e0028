//! One gradient set through the CPU path and through f64 arithmetic, which shares nothing with it.

use gradclip::cpu::{self, Trace};
use gradclip::layout::{CLIPPED, Outcome};
use gradclip::{Clip, NonFinite, NormType, Rule};

use crate::cases::Case;
use crate::failure::Failure;
use crate::tally::{Findings, Tally, ulp};
use crate::tensor::Element;
use crate::verify_f64::{Exact, Measured, Segment, rounded};

/// The error of an L1, L2 or infinity norm: half an ulp of rounding, and what the sum drops.
const NORM: f64 = 0.65;
/// Of what is rounded once: half an ulp, and f64's own error.
const ROUNDED: f64 = 0.501;
/// A clipped f32's beside the norm's: the sum with eps and the scale are rounded, which is an ulp each
/// of a result with a small mantissa, and the product half an ulp.
const APPLIED: f64 = 2.5;
/// A clipped half's: rounded once, what went before hardly shows.
const APPLIED_HALF: f64 = 0.51;
/// A limit that follows from parameters: twice the norm's error, where mantissas are small, and a product.
const LIMIT: f64 = 2.0 * NORM + 1.0;

pub(crate) fn tallies() -> Vec<Tally> {
    ["norm", "power", "coefficient", "apply", "units", "rules"].map(Tally::new).to_vec()
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

/// The largest error of a norm in ulp.
fn most(norm: NormType) -> f64 {
    match norm {
        // Records are rounded to f32, and the root divides their error by p.
        NormType::P(p) => 2.0 * (2.0 + 3.0 / f64::from(p)),
        _ => NORM,
    }
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
        let measured = Measured::of(&tensor.data, clip.norm);
        let finite = clip.non_finite == NonFinite::Sanitize;
        check(measured.norm(clip.norm, finite) * f64::from(clip.unscale), reported.norm);
    }
    for (segment, outcome) in exact.segments.iter().chain(&exact.total).zip(&trace.outcomes) {
        check(segment.norm(case), norm_of(outcome));
    }
    for (segment, outcome) in trace.report.segments.iter().zip(&trace.outcomes).filter(|_| !case.cut()) {
        check(norm_of(outcome), segment.norm);
    }
}

/// The norm of an outcome, also above the largest f32.
fn norm_of(outcome: &Outcome) -> f64 {
    match outcome.norm {
        n if n.is_nan() || (n.is_infinite() && outcome.norm_mantissa == 0) => n.into(),
        _ => f64::from(outcome.norm_mantissa) * 2f64.powi(outcome.norm_exponent),
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
        findings.value(error, if agc { LIMIT } else { ROUNDED });
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
        findings.value(error, ROUNDED + if agc { LIMIT } else { 0.0 });
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

fn poisoned(case: &Case, segment: &Segment) -> bool {
    segment.gradients.offends() && segment.policy(case) != NonFinite::Sanitize
}

/// Whether a norm exceeds its limit by the values reported. Where the limit itself may be off, the flag
/// says it.
fn exceeds(case: &Case, segment: &Segment, outcome: &Outcome) -> bool {
    let (norm, limit) = (norm_of(outcome), segment.limit(case));
    let near = matches!(case.clip.rule, Rule::Agc { .. }) && (norm / limit - 1.0).abs() < 1e-6;
    if near { outcome.flags & CLIPPED != 0 } else { norm > limit }
}

/// What the norm is multiplied by; 1 where elements are limited one by one.
fn coefficient(rule: Rule, norm: f64, limit: f64, over: bool, case: &Case, sum: fn(f64) -> f64) -> f64 {
    match rule {
        Rule::Sign | Rule::Value => 1.0,
        Rule::Normalize if norm > 0.0 => quotient(norm, limit, case, false, sum),
        _ if over => quotient(norm, limit, case, matches!(rule, Rule::Agc { .. }), sum),
        _ => 1.0,
    }
}

/// limit / (norm + eps), with what becomes of the sum.
fn quotient(norm: f64, limit: f64, case: &Case, agc: bool, sum: fn(f64) -> f64) -> f64 {
    let divisor = sum(norm + f64::from(case.clip.eps));
    limit / if agc { divisor.max(1e-6f32.into()) } else { divisor }
}

/// What happens to the elements of a segment.
enum Change {
    Keep,
    Fill(f64),
    Multiply(f64),
    Sign(f64),
    Clamp(f64),
}

/// Every element against f64, with norms and limits in f64 too.
fn elements(before: &Case, after: &Case, exact: &Exact, trace: &Trace, findings: &mut Findings) {
    let total = exact.total.as_ref();
    let changes: Vec<Change> =
        exact.segments.iter().zip(&trace.outcomes).map(|(s, o)| change(before, s, o, total)).collect();
    let limit = match before.clip.rule {
        Rule::Rms | Rule::Average => 1.0,
        Rule::Agc { .. } => LIMIT,
        _ => 0.0,
    };
    let full = APPLIED + 2.0 * most(before.clip.norm) + limit;
    let Clip { unscale, non_finite, .. } = before.clip;
    for ((before, after), owner) in before.tensors.iter().zip(&after.tensors).zip(&exact.owners) {
        let element = before.data.element();
        let applied = if element == Element::F32 { full } else { APPLIED_HALF };
        for i in 0..before.data.len() {
            let (from, to) = (before.data.value(i), after.data.value(i));
            let (expected, most) = match changes[owner.at(i)] {
                Change::Keep => {
                    let same = before.data.bits(i) == after.data.bits(i);
                    findings.value(if same { 0.0 } else { f64::INFINITY }, 0.0);
                    continue;
                }
                Change::Fill(value) => (value, 0.0),
                _ if !from.is_finite() && non_finite != NonFinite::Keep => (0.0, 0.0),
                Change::Clamp(most) => ((from * f64::from(unscale)).clamp(-most, most), APPLIED_HALF),
                Change::Sign(_) if from == 0.0 => (0.0, 0.0),
                Change::Sign(magnitude) => (magnitude.copysign(from), APPLIED_HALF),
                Change::Multiply(factor) => (from * factor, applied),
            };
            findings.value(distance(element, to, expected), most);
        }
    }
}

fn change(case: &Case, segment: &Segment, outcome: &Outcome, total: Option<&Segment>) -> Change {
    let total = total.filter(|_| !segment.excluded);
    let offends = segment.gradients.offends();
    match segment.policy(case) {
        _ if !offends && !total.is_some_and(|t| poisoned(case, t)) => {}
        NonFinite::Skip => return Change::Keep,
        NonFinite::Zero => return Change::Fill(0.0),
        NonFinite::Nan => return Change::Fill(f64::NAN),
        _ => {}
    }
    let (norm, limit) = (segment.norm(case), segment.limit(case));
    // Whether a norm within its own error of the limit exceeds it is the report's to say.
    let over = exceeds(case, segment, outcome) || (offends && case.clip.non_finite == NonFinite::Keep);
    match segment.rule(case) {
        Rule::Value if over => return Change::Clamp(limit),
        Rule::Sign if over => return Change::Sign(limit),
        _ => {}
    }
    let own = coefficient(segment.rule(case), norm, limit, over, case, |divisor| divisor);
    let whole = total.map_or(f64::INFINITY, |t| {
        let (norm, limit) = (t.norm(case), t.threshold());
        if norm > limit { quotient(norm, limit, case, false, |divisor| divisor) } else { 1.0 }
    });
    let factor = own.min(whole) * f64::from(case.clip.unscale);
    if factor == 1.0 && !offends { Change::Keep } else { Change::Multiply(factor) }
}

/// Ulp between a result and what it should be. The number after the largest is infinity.
fn distance(element: Element, got: f64, expected: f64) -> f64 {
    if expected.is_nan() {
        return f64::from(u8::from(!got.is_nan()));
    }
    let largest = match element {
        Element::F32 => f64::from(f32::MAX),
        Element::F16 => half::f16::MAX.to_f64(),
        Element::Bf16 => half::bf16::MAX.to_f64(),
    };
    let unit = ulp(element, expected.abs().min(largest));
    let last = |value: f64| value.clamp(-largest - unit, largest + unit);
    (last(got) - last(expected)).abs() / unit
}
