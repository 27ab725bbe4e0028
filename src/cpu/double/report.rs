//! What was measured and done, for the host.

use crate::clip::Clip;
use crate::layout::{NONE, Tally};
use crate::report::{self, Report, SegmentReport, saturated};
use crate::segments::Segments;
use crate::tensor::TensorInfo;

use super::decide::{Change, Outcome, unscaled_norm};
use super::decided::Decided;
use super::measure::Measured;
use super::sum::Sum;

/// As [`crate::report::report`], with `f64` for norms, thresholds and coefficients.
pub(super) fn report(
    clip: &Clip,
    infos: &[TensorInfo],
    parts: &Segments,
    measured: &Measured,
    decided: &Decided,
    tally: &Tally,
) -> Report {
    // Units and rows are not reported.
    let outcomes = if parts.cut() { &[][..] } else { &decided.outcomes[..] };
    let told = report::Decided {
        segments: outcomes.iter().map(segment).collect(),
        total: decided.total.as_ref().map(segment),
        multiplies: outcomes.iter().all(|o| !matches!(o.change, Change::Clamp(_) | Change::Sign(_))),
    };
    let of = |sum: &Sum, non_finite_parameters: u64| report::Measured {
        norm: unscaled_norm(sum, &decided.rules).to_f64(),
        non_finite: sum.non_finite,
        infinite: !sum.nan,
        non_finite_parameters,
    };
    let mut whole = Sum::nothing(measured.norm);
    let limited = measured.tensors.iter().zip(infos).filter(|(_, info)| !info.excluded());
    limited.for_each(|(sum, _)| whole.merge(&sum.carried(), measured.norm));
    report::build(clip, infos, parts, told, tally, &of(&whole, 0), |i| {
        of(&measured.tensors[i], measured.tensor_parameters.get(i).map_or(0, |p| p.non_finite))
    })
}

fn segment(outcome: &Outcome) -> SegmentReport {
    SegmentReport {
        name: None,
        excluded: false,
        norm: outcome.norm,
        threshold: outcome.threshold,
        coefficient: outcome.coefficient,
        clipped: outcome.clipped,
        changed: outcome.change != Change::Keep,
        skipped: outcome.skipped,
        non_finite: saturated(outcome.non_finite),
        first_non_finite: (outcome.first != NONE).then_some(outcome.first as usize),
    }
}
