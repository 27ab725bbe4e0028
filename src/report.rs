//! What a clip did, on the host.

use std::sync::Arc;

use crate::clip::{Clip, Kind, NonFinite};
use crate::layout::{CLIPPED, KEEP, NONE, Outcome, SKIPPED, Sum, Tally};
use crate::norm::unscaled_norm;
use crate::segments::Segments;
use crate::tensor::{DType, TensorInfo};

/// What a clip measured and did. Norms are those before clipping, of the unscaled gradients, as
/// `f64`: they are `f32` values, or for norms above `f32::MAX` values of 24 bits, and an `f64`
/// holds either exactly. Those of a set with `f64` gradients are rounded to an `f64`: one above `f64::MAX`,
/// which clips rightly, is infinite here although no element counts as non-finite.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Report {
    /// One entry a segment: a single one for [`Scope::Global`](crate::Scope::Global) and one for each
    /// excluded group, one a tensor for [`Scope::Tensor`](crate::Scope::Tensor), one a group. None for
    /// units and rows, of which there may be millions: [`Pass::outcomes`](crate::Pass::outcomes) has
    /// them.
    pub segments: Vec<SegmentReport>,
    /// The whole set, where it is limited beside its segments.
    pub total: Option<SegmentReport>,
    /// One entry a tensor, in the order given.
    pub tensors: Vec<TensorReport>,
    /// Number of the step, from 1.
    pub step: u64,
    /// Steps so far in which a segment was clipped.
    pub clipped_steps: u64,
    /// Steps so far in which a segment was skipped.
    pub skipped_steps: u64,
    /// Segments clipped in this step: the number of clipped examples of per-example clipping.
    pub clipped_segments: u64,
    /// Segments written to in this step.
    pub changed_segments: u64,
}

/// One segment of a [`Report`].
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SegmentReport {
    /// Name of the group, where it is one.
    pub name: Option<Arc<str>>,
    /// Whether it is an excluded group or tensor, which is measured and unscaled but never clipped.
    pub excluded: bool,
    /// Norm before clipping; infinite or NaN where elements are and the policy does not remove them.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::clip::number::serialize"))]
    pub norm: f64,
    /// The largest norm that was allowed, whatever rule it came from. An `f32`, unless a gradient of the
    /// set is of `f64`.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::clip::number::serialize"))]
    pub threshold: f64,
    /// threshold / norm where the norm exceeded the threshold, else exactly 1. Under
    /// [`NonFinite::Zero`] 0 and under [`NonFinite::Nan`] NaN where an element was not finite. An `f32`,
    /// unless a gradient of the set is of `f64`.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::clip::number::serialize"))]
    pub coefficient: f64,
    /// Whether the norm exceeded the threshold.
    pub clipped: bool,
    /// Whether gradients were written at all.
    pub changed: bool,
    /// Whether a non-finite element made the clip leave the gradients alone.
    pub skipped: bool,
    /// Number of non-finite elements, saturating at `u32::MAX`.
    pub non_finite: u32,
    /// Index of the first tensor with one.
    pub first_non_finite: Option<usize>,
}

/// One tensor of a [`Report`].
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct TensorReport {
    /// Its name.
    pub name: Arc<str>,
    /// Its element type.
    pub dtype: DType,
    /// Number of elements.
    pub elements: u64,
    /// Norm before clipping, as in [`SegmentReport::norm`].
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::clip::number::serialize"))]
    pub norm: f64,
    /// Its segment; the first one where it is cut into units.
    pub segment: usize,
    /// Number of non-finite elements, those of its parameter under [`Rule::Agc`](crate::Rule::Agc)
    /// counted, saturating at `u32::MAX`.
    pub non_finite: u32,
    /// How many of them are the parameter's.
    pub non_finite_parameters: u32,
}

impl Report {
    /// The norm of the whole set, excluded groups left out, where it is one segment.
    pub fn norm(&self) -> Option<f64> {
        self.single().map(|s| s.norm)
    }

    /// The coefficient of the whole set, excluded groups left out, where it is one segment.
    pub fn coefficient(&self) -> Option<f64> {
        self.single().map(|s| s.coefficient)
    }

    /// Whether any segment was clipped.
    pub fn clipped(&self) -> bool {
        self.clipped_segments > 0
    }

    /// The share of the steps so far in which a segment was clipped, from 0 to 1.
    pub fn clipped_share(&self) -> f64 {
        self.clipped_steps as f64 / self.step.max(1) as f64
    }

    /// Number of non-finite elements of the set.
    pub fn non_finite(&self) -> u64 {
        self.tensors.iter().map(|t| u64::from(t.non_finite)).sum()
    }

    /// Name of the first tensor with a non-finite element.
    pub fn first_non_finite(&self) -> Option<&str> {
        self.tensors.iter().find(|t| t.non_finite > 0).map(|t| &*t.name)
    }

    pub(crate) fn single(&self) -> Option<&SegmentReport> {
        let mut limited = self.segments.iter().filter(|s| !s.excluded);
        limited.next().filter(|_| limited.next().is_none())
    }
}

/// What was measured of a tensor.
pub(crate) struct Measured {
    /// The norm of its finite elements.
    pub(crate) norm: f64,
    /// How many of its elements are not finite, and whether all of these are infinite.
    pub(crate) non_finite: u64,
    pub(crate) infinite: bool,
    /// How many elements of its parameter are not finite.
    pub(crate) non_finite_parameters: u64,
}

/// Builds the report from what is reported of all segments, those of the whole set apart, and from what was
/// measured of the tensor of each index.
pub(crate) fn build(
    clip: &Clip,
    tensors: &[TensorInfo],
    parts: &Segments,
    mut segments: Vec<SegmentReport>,
    total: Option<SegmentReport>,
    tally: &Tally,
    measured: impl Fn(usize) -> Measured,
) -> Report {
    for (segment, limit) in segments.iter_mut().zip(&parts.limits) {
        segment.name.clone_from(&limit.name);
        segment.excluded = limit.excluded;
    }
    let one = |(i, info): (usize, &TensorInfo)| tensor(clip, info, parts.owners[i].first(), &measured(i));
    Report {
        segments,
        total,
        tensors: tensors.iter().enumerate().map(one).collect(),
        step: tally.steps.into(),
        clipped_steps: tally.clipped_steps.into(),
        skipped_steps: tally.skipped_steps.into(),
        clipped_segments: tally.clipped.into(),
        changed_segments: tally.changed.into(),
    }
}

fn tensor(clip: &Clip, info: &TensorInfo, segment: u32, measured: &Measured) -> TensorReport {
    let norm = match (measured.non_finite, measured.infinite, clip.non_finite) {
        (0, _, _) | (_, _, NonFinite::Sanitize) => measured.norm,
        (_, true, _) => f64::INFINITY,
        _ => f64::NAN,
    };
    TensorReport {
        name: info.name.clone(),
        dtype: info.dtype,
        elements: info.elements,
        norm,
        segment: segment as usize,
        non_finite: saturated(measured.non_finite.saturating_add(measured.non_finite_parameters)),
        non_finite_parameters: saturated(measured.non_finite_parameters),
    }
}

pub(crate) fn saturated(count: u64) -> u32 {
    count.try_into().unwrap_or(u32::MAX)
}

/// Builds the report from the records that GPU and CPU path write alike. `sums` holds those of all tensors,
/// then those of parameters; `outcomes` those of all segments, or for units and rows only that of the whole
/// set.
pub(crate) fn report(
    clip: &Clip,
    tensors: &[TensorInfo],
    parts: &Segments,
    sums: &[Sum],
    outcomes: &[Outcome],
    tally: &Tally,
) -> Report {
    let mut segments: Vec<SegmentReport> = outcomes.iter().map(segment).collect();
    let total = if parts.total { segments.pop() } else { None };
    let mut place = vec![0; tensors.len()];
    parts.order.iter().enumerate().for_each(|(at, &tensor)| place[tensor as usize] = at);
    build(clip, tensors, parts, segments, total, tally, |i| {
        let sum = &sums[place[i]];
        let parameter = if parts.parameters { sums.get(place[i] + tensors.len()) } else { None };
        Measured {
            norm: unscaled_norm(sum, Kind::from(clip.norm), tally.unscale).to_f64(),
            non_finite: sum.non_finite.into(),
            infinite: sum.nan == 0,
            non_finite_parameters: parameter.map_or(0, |p| p.non_finite.into()),
        }
    })
}

pub(crate) fn segment(outcome: &Outcome) -> SegmentReport {
    let finite = f64::from(outcome.norm_mantissa) * 2f64.powi(outcome.norm_exponent);
    // An infinite norm with a mantissa is finite, but above f32::MAX.
    let non_finite = outcome.norm.is_nan() || (outcome.norm.is_infinite() && outcome.norm_mantissa == 0);
    SegmentReport {
        name: None,
        excluded: false,
        norm: if non_finite { f64::from(outcome.norm) } else { finite },
        threshold: outcome.threshold.into(),
        coefficient: outcome.coefficient.into(),
        clipped: outcome.flags & CLIPPED != 0,
        changed: outcome.action != KEEP,
        skipped: outcome.flags & SKIPPED != 0,
        non_finite: outcome.non_finite,
        first_non_finite: (outcome.first_non_finite != NONE).then_some(outcome.first_non_finite as usize),
    }
}
