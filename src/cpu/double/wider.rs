//! An outcome decided over narrower gradients, for elements that were widened to `f64` since.

use crate::clip::NonFinite;
use crate::layout::{self, CLAMP, FILL, KEEP, NONE, SANITIZE, SIGN, TOWARD_ZERO};
use crate::segments::UnitView;

use super::apply;
use super::decide::{Change, Outcome};
use super::norm::Norm;
use super::real::{NO_MIN_EXPONENT, Real, Towards};
use super::rules::{Most, Rules};

/// Applies the outcome to neighbouring elements.
pub(in super::super) fn apply_single(elements: &mut [f64], outcome: &layout::Outcome) {
    let rules = rules_of(outcome);
    let most = if outcome.action & SANITIZE == 0 { Most::FINITE } else { Most::new(rules.unscale).single };
    apply::apply(elements, &widened(outcome), most, &rules);
}

/// Applies to each element, the first of them element `first` of its tensor, the outcome of its unit.
pub(in super::super) fn apply_single_units(
    elements: &mut [f64],
    first: u64,
    view: &UnitView,
    outcomes: &[layout::Outcome],
) {
    for (run, unit) in view.runs(first, elements.len()) {
        apply_single(&mut elements[run], &outcomes[unit]);
    }
}

/// What of a clip the outcome still has.
fn rules_of(outcome: &layout::Outcome) -> Rules {
    Rules {
        norm: Norm::Two,
        unscale: outcome.unscale.into(),
        most: Most { double: Most::FINITE, single: Most::FINITE },
        eps: 0.0,
        policy: NonFinite::Skip,
        never_above: outcome.action & TOWARD_ZERO != 0,
    }
}

fn widened(outcome: &layout::Outcome) -> Outcome {
    let scale = f64::from(outcome.scale);
    let rescale = Real::from_f64(outcome.rescale.into());
    Outcome {
        norm: outcome.norm.into(),
        threshold: outcome.threshold.into(),
        coefficient: outcome.coefficient.into(),
        // Exact: 24 bits times a power of two. A value to fill with is no factor.
        factor: match scale.is_finite() {
            true => Real::from_f64(scale).multiply(rescale).multiply(rescale),
            false => Real::ZERO,
        }
        .round(NO_MIN_EXPONENT, Towards::Nearest),
        change: match outcome.action & !(SANITIZE | TOWARD_ZERO) {
            KEEP => Change::Keep,
            FILL => Change::Fill(scale),
            CLAMP => Change::Clamp(scale),
            SIGN => Change::Sign(scale),
            _ => Change::Multiply,
        },
        sanitize: outcome.action & SANITIZE != 0,
        clipped: false,
        skipped: false,
        non_finite: 0,
        first: NONE,
    }
}
