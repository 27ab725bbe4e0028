//! sum and setting of a segment -> outcome: [`super::super::coefficient`] in 53 bits.

use super::real::{F64_MIN_EXPONENT, NO_MIN_EXPONENT, Real, Rounded, Towards};
use super::rules::{Rules, Setting};
use super::sum::Sum;
use crate::clip::{NonFinite, Rule};

/// A norm below this counts as this in the quotient of adaptive gradient clipping.
const AGC_LEAST_NORM: f64 = 1e-6;

/// What is done to the elements of a segment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Change {
    /// Nothing.
    Keep,
    /// They are multiplied by the outcome's factor.
    Multiply,
    /// All become this.
    Fill(f64),
    /// They are unscaled and clamped to this magnitude.
    Clamp(f64),
    /// They get this magnitude, zeros aside.
    Sign(f64),
}

/// What happens to a segment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Outcome {
    pub(super) norm: f64,
    /// The largest norm that was allowed.
    pub(super) threshold: f64,
    pub(super) coefficient: f64,
    /// Coefficient times unscale factor.
    pub(super) factor: Rounded,
    pub(super) change: Change,
    /// Whether elements that are not finite become 0.
    pub(super) sanitize: bool,
    pub(super) clipped: bool,
    pub(super) skipped: bool,
    pub(super) non_finite: u64,
    pub(super) first: u32,
}

fn exactly(value: f64) -> Rounded {
    Real::from_f64(value).round(NO_MIN_EXPONENT, Towards::Nearest)
}

/// The norm of unscaled gradients, to nearest.
pub(super) fn unscaled_norm(sum: &Sum, rules: &Rules) -> Rounded {
    let norm = sum.norm(rules.norm).multiply(Real::from_f64(rules.unscale));
    norm.round(F64_MIN_EXPONENT, Towards::Nearest)
}

/// A norm that unscaled gradients do not exceed in exact arithmetic.
fn norm_at_most(sum: &Sum, rules: &Rules) -> Rounded {
    let norm = sum.norm_at_most(rules.norm).multiply(Real::from_f64(rules.unscale));
    norm.round(F64_MIN_EXPONENT, Towards::Infinity)
}

/// The largest norm allowed; `parameters` is the sum of the parameters where the rule compares with it.
fn limit_of(limit: Real, setting: &Setting, parameters: &Sum, rules: &Rules) -> Real {
    let Rule::Agc { eps } = setting.rule else { return limit };
    let norm = parameters.norm(rules.norm).round(F64_MIN_EXPONENT, rules.towards());
    limit.multiply(norm.larger(exactly(eps.abs())).to_real())
}

/// limit / (norm + eps).
fn quotient(norm: Rounded, limit: Rounded, setting: &Setting, rules: &Rules) -> Real {
    let up = if rules.never_above { Towards::Infinity } else { Towards::Nearest };
    let divisor = norm.add(exactly(rules.eps)).round(NO_MIN_EXPONENT, up);
    let agc = matches!(setting.rule, Rule::Agc { .. });
    limit.quotient(if agc { divisor.larger(exactly(AGC_LEAST_NORM)) } else { divisor })
}

/// Decides what happens to a segment.
pub(super) fn decide(sum: &Sum, setting: &Setting, parameters: &Sum, rules: &Rules) -> Outcome {
    let reported = unscaled_norm(sum, rules);
    let norm = if rules.never_above { norm_at_most(sum, rules) } else { reported };
    let limit = setting.limit.map(|limit| limit_of(limit, setting, parameters, rules));
    let most = limit.map(|limit| limit.round(NO_MIN_EXPONENT, rules.towards()));
    let over = most.is_some_and(|most| norm.exceeds(most));
    let scales = over && !matches!(setting.rule, Rule::Sign | Rule::Value);
    let normalises = setting.rule == Rule::Normalize && norm.mantissa != 0;
    let coefficient = match most {
        Some(most) if scales || normalises => quotient(norm, most, setting, rules),
        _ => Real::ONE,
    };
    let factor = coefficient.multiply(Real::from_f64(rules.unscale)).round(NO_MIN_EXPONENT, rules.towards());
    let threshold = limit.map_or(f64::INFINITY, |l| l.round(F64_MIN_EXPONENT, rules.towards()).to_f64());
    let mut out = Outcome {
        norm: reported.to_f64(),
        threshold,
        coefficient: coefficient.round(F64_MIN_EXPONENT, rules.towards()).to_f64(),
        factor,
        change: if factor.as_normal() == Some(1.0) { Change::Keep } else { Change::Multiply },
        sanitize: false,
        clipped: over,
        skipped: false,
        non_finite: sum.non_finite,
        first: sum.first,
    };
    match setting.rule {
        Rule::Sign if over => out.change = Change::Sign(threshold),
        // What unscaling rounds to a narrow type might exceed the limit, too.
        Rule::Value if over || (limit.is_some() && out.change != Change::Keep) => {
            out.change = Change::Clamp(threshold);
        }
        _ => {}
    }
    let mut nan = sum.nan;
    if let Rule::Agc { .. } = setting.rule {
        // No limit follows from parameters that are not finite.
        out.non_finite = out.non_finite.saturating_add(parameters.non_finite);
        out.first = out.first.min(parameters.first);
        nan |= parameters.nan;
    }
    if out.non_finite != 0 {
        let policy = if setting.free { NonFinite::Skip } else { rules.policy };
        decide_non_finite(&mut out, nan, policy);
    }
    out
}

fn decide_non_finite(out: &mut Outcome, nan: bool, policy: NonFinite) {
    if policy == NonFinite::Sanitize {
        out.sanitize = true;
        if out.change == Change::Keep {
            out.change = Change::Multiply;
        }
        return;
    }
    out.norm = if nan { f64::NAN } else { f64::INFINITY };
    if policy == NonFinite::Keep {
        if out.threshold != f64::INFINITY {
            out.clipped = true;
            out.change = Change::Clamp(out.threshold);
        }
        return;
    }
    out.clipped = false;
    (out.coefficient, out.change) = match policy {
        NonFinite::Zero => (0.0, Change::Fill(0.0)),
        NonFinite::Nan => (f64::NAN, Change::Fill(f64::NAN)),
        _ => {
            out.skipped = true;
            (1.0, Change::Keep)
        }
    };
}

/// The limit on the whole set: what it does to all, or the smaller coefficient.
pub(super) fn limit_by_total(out: &mut Outcome, total: &Outcome, rules: &Rules) {
    let poisoned = total.non_finite != 0 && rules.policy != NonFinite::Sanitize;
    if !poisoned && !out.factor.exceeds(total.factor) {
        return;
    }
    (out.coefficient, out.factor) = (total.coefficient, total.factor);
    out.change = if poisoned { total.change } else { Change::Multiply };
    out.clipped = total.clipped || (out.clipped && !poisoned);
    out.skipped |= total.skipped;
}

/// Whether the norm of the whole set is above a bound, which leaves out the step.
pub(super) fn is_above(sum: &Sum, bound: f64, rules: &Rules) -> bool {
    let known = sum.non_finite == 0 || rules.policy == NonFinite::Sanitize;
    known && bound.is_finite() && unscaled_norm(sum, rules).exceeds(exactly(bound))
}

/// A step is left out: nothing changes, whatever was decided.
pub(super) fn leave(out: &mut Outcome, rules: &Rules) {
    (out.coefficient, out.factor) = (1.0, exactly(rules.unscale));
    (out.change, out.sanitize, out.clipped, out.skipped) = (Change::Keep, false, false, true);
}
