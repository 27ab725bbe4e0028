//! What was measured and done, for the host.

use crate::clip::{Clip, NonFinite};
use crate::layout::{NONE, Tally};
use crate::report::{Report, SegmentReport, TensorReport};
use crate::segments::{Segments, TensorInfo};

use super::decide::{Change, Outcome, unscaled_norm};
use super::decided::Decided;
use super::measure::Measured;

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
    let mut segments: Vec<SegmentReport> = outcomes.iter().map(segment).collect();
    for (segment, limit) in segments.iter_mut().zip(&parts.limits) {
        segment.name.clone_from(&limit.name);
        segment.excluded = limit.excluded;
    }
    let tensors = infos.iter().enumerate().map(|(i, info)| TensorReport {
        segment: parts.owners[i].first() as usize,
        ..tensor(clip, info, i, measured, decided)
    });
    Report {
        segments,
        total: decided.total.as_ref().map(segment),
        tensors: tensors.collect(),
        step: tally.steps.into(),
        clipped_steps: tally.clipped_steps.into(),
        skipped_steps: tally.skipped_steps.into(),
        clipped_segments: tally.clipped.into(),
        changed_segments: tally.changed.into(),
    }
}

fn saturated(count: u64) -> u32 {
    count.try_into().unwrap_or(u32::MAX)
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

fn tensor(clip: &Clip, info: &TensorInfo, i: usize, measured: &Measured, decided: &Decided) -> TensorReport {
    let sum = &measured.tensors[i];
    let of_parameters = measured.tensor_parameters.get(i).map_or(0, |p| p.non_finite);
    let norm = match (sum.non_finite, sum.nan, clip.non_finite) {
        (0, _, _) | (_, _, NonFinite::Sanitize) => unscaled_norm(sum, &decided.rules).to_f64(),
        (_, false, _) => f64::INFINITY,
        _ => f64::NAN,
    };
    TensorReport {
        name: info.name.clone(),
        dtype: info.dtype,
        elements: info.elements,
        norm,
        segment: 0,
        non_finite: saturated(sum.non_finite.saturating_add(of_parameters)),
        non_finite_parameters: saturated(of_parameters),
    }
}
