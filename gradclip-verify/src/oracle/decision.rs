//! What a clip makes of every element, decided in f64.

use gradclip::cpu::Trace;
use gradclip::layout::{CLIPPED, Outcome};
use gradclip::{NonFinite, Rule};

use crate::inputs::Case;
use crate::oracle::in_f64::{Exact, Segment, unscales_to_infinity};
use crate::tolerance::{APPLIED_ULP, BELOW_ULP, LIMIT_ULP, ONCE_ULP, norm_ulp};

/// The norm of an outcome, also above the largest f32.
pub(crate) fn norm_of(outcome: &Outcome) -> f64 {
    match outcome.norm {
        n if n.is_nan() || (n.is_infinite() && outcome.norm_mantissa == 0) => n.into(),
        _ => f64::from(outcome.norm_mantissa) * 2f64.powi(outcome.norm_exponent),
    }
}

pub(crate) fn poisoned(case: &Case, segment: &Segment) -> bool {
    segment.gradients.offends() && segment.policy(case) != NonFinite::Sanitize
}

/// Whether a norm exceeds its limit by the values reported. Where the limit itself may be off, the flag
/// says it.
pub(crate) fn exceeds(case: &Case, segment: &Segment, outcome: &Outcome) -> bool {
    let (norm, limit) = (norm_of(outcome), segment.limit(case));
    let near =
        (case.below() || matches!(case.clip.rule, Rule::Agc { .. })) && (norm / limit - 1.0).abs() < 1e-6;
    if near { outcome.flags & CLIPPED != 0 } else { norm > limit }
}

/// What the norm is multiplied by; 1 where elements are limited one by one.
pub(crate) fn coefficient(
    rule: Rule,
    norm: f64,
    limit: f64,
    over: bool,
    case: &Case,
    sum: fn(f64) -> f64,
) -> f64 {
    match rule {
        Rule::Sign | Rule::Value => 1.0,
        Rule::Normalize if norm > 0.0 => quotient(norm, limit, case, false, sum),
        _ if over => quotient(norm, limit, case, matches!(rule, Rule::Agc { .. }), sum),
        _ => 1.0,
    }
}

/// limit / (norm + eps), with what becomes of the sum.
pub(crate) fn quotient(norm: f64, limit: f64, case: &Case, agc: bool, sum: fn(f64) -> f64) -> f64 {
    let divisor = sum(norm + case.clip.eps);
    limit / if agc { divisor.max(1e-6f32.into()) } else { divisor }
}

/// What happens to the elements of a segment.
enum Change {
    Keep,
    Skip,
    Fill(f64),
    Multiply(f64),
    Sign(f64),
    Clamp(f64),
}

/// What an element should become.
pub(crate) enum Expected {
    /// What it is, to the bit.
    Kept,
    /// The same; and what uses clipped gradients leaves it out.
    Skipped,
    /// A value, from which it may be off by so many ulp if it is an f32.
    Value(f64, f64),
}

/// What a clip makes of all elements of a case, with norms and limits in f64 too.
pub(crate) struct Changes<'a> {
    case: &'a Case,
    exact: &'a Exact,
    of: Vec<Change>,
    /// Largest error in ulp of an f32 that is multiplied.
    most: f64,
}

impl<'a> Changes<'a> {
    pub(crate) fn new(case: &'a Case, exact: &'a Exact, trace: &Trace) -> Changes<'a> {
        let total = exact.total.as_ref();
        let segments = exact.segments.iter().zip(&trace.outcomes);
        let of = segments.map(|(segment, outcome)| change(case, segment, outcome, total)).collect();
        let limit = match case.clip.rule {
            Rule::Rms | Rule::Average => 1.0,
            Rule::Agc { .. } => LIMIT_ULP,
            _ => 0.0,
        };
        let below = if case.below() { BELOW_ULP } else { 0.0 };
        Changes { case, exact, of, most: APPLIED_ULP + 2.0 * norm_ulp(case.clip.norm) + limit + below }
    }

    /// Element `i` of a tensor.
    pub(crate) fn element(&self, tensor: usize, i: usize) -> Expected {
        let from = self.case.tensors[tensor].data.value(i);
        let clip = &self.case.clip;
        match self.of[self.exact.parts.at(tensor, i)] {
            Change::Keep => Expected::Kept,
            Change::Skip => Expected::Skipped,
            Change::Fill(value) => Expected::Value(value, 0.0),
            _ if clip.non_finite != NonFinite::Keep && sanitised(from, clip.unscale) => {
                Expected::Value(0.0, 0.0)
            }
            Change::Clamp(most) => {
                let most = self.case.tensors[tensor].data.element().floor(most);
                Expected::Value((from * clip.unscale).clamp(-most, most), ONCE_ULP)
            }
            Change::Sign(_) if from == 0.0 => Expected::Value(0.0, 0.0),
            Change::Sign(magnitude) => Expected::Value(magnitude.copysign(from), ONCE_ULP),
            Change::Multiply(factor) => Expected::Value(from * factor, self.most),
        }
    }

    /// Whether norms are rounded up, and everything else down.
    pub(crate) fn below(&self) -> bool {
        self.case.below()
    }

    /// Whether some gradients are left out, so that a step is none.
    pub(crate) fn skip(&self) -> bool {
        self.of.iter().any(|change| matches!(change, Change::Skip))
    }
}

fn sanitised(value: f64, unscale: f64) -> bool {
    value.is_nan() || unscales_to_infinity(value.abs(), unscale)
}

fn change(case: &Case, segment: &Segment, outcome: &Outcome, total: Option<&Segment>) -> Change {
    let total = total.filter(|_| !segment.excluded);
    let offends = segment.gradients.offends();
    match segment.policy(case) {
        _ if !offends && !total.is_some_and(|t| poisoned(case, t)) => {}
        NonFinite::Skip => return Change::Skip,
        NonFinite::Zero => return Change::Fill(0.0),
        NonFinite::Nan => return Change::Fill(f64::NAN),
        _ => {}
    }
    let (norm, limit) = (segment.norm(case), segment.limit(case));
    // Whether a norm within its own error of the limit exceeds it is the report's to say.
    let over = exceeds(case, segment, outcome) || (offends && case.clip.non_finite == NonFinite::Keep);
    match segment.rule(case) {
        // What unscaling rounds to 16 bits is limited, too.
        Rule::Value if over || case.clip.unscale != 1.0 => return Change::Clamp(limit),
        Rule::Sign if over => return Change::Sign(limit),
        _ => {}
    }
    let own = coefficient(segment.rule(case), norm, limit, over, case, |divisor| divisor);
    let whole = total.map_or(f64::INFINITY, |t| {
        let (norm, limit) = (t.norm(case), t.threshold());
        if norm > limit { quotient(norm, limit, case, false, |divisor| divisor) } else { 1.0 }
    });
    let factor = own.min(whole) * case.clip.unscale;
    if factor == 1.0 && !offends { Change::Keep } else { Change::Multiply(factor) }
}
