//! What a clip did, on the host.

use std::sync::Arc;

use crate::clip::{Clip, Kind, NonFinite};
use crate::cpu::coefficient::unscaled_norm;
use crate::grad::DType;
use crate::layout::{CLIPPED, KEEP, NONE, Outcome, SKIPPED, Sum};

/// What a clip measured and did. Norms are those before clipping, of the unscaled gradients, as
/// `f64`: they are `f32` values, or for norms above `f32::MAX` values of 24 bits, and an `f64`
/// holds either exactly.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Report {
    /// One entry a segment: a single one for [`Scope::Global`](crate::Scope::Global), one a tensor
    /// for [`Scope::Tensor`](crate::Scope::Tensor).
    pub segments: Vec<SegmentReport>,
    /// One entry a tensor, in the order given.
    pub tensors: Vec<TensorReport>,
}

/// One segment of a [`Report`].
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SegmentReport {
    /// Norm before clipping; infinite or NaN where elements are and the policy does not remove them.
    pub norm: f64,
    /// The threshold it was compared with.
    pub threshold: f32,
    /// threshold / norm where the norm exceeded the threshold, else exactly 1. Under
    /// [`NonFinite::Zero`] 0 and under [`NonFinite::Nan`] NaN where an element was not finite.
    pub coefficient: f32,
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
    pub norm: f64,
    /// Its segment.
    pub segment: usize,
    /// Number of non-finite elements, saturating at `u32::MAX`.
    pub non_finite: u32,
}

impl Report {
    /// The norm of the whole set, where there is one segment.
    pub fn norm(&self) -> Option<f64> {
        self.single().map(|s| s.norm)
    }

    /// The coefficient of the whole set, where there is one segment.
    pub fn coefficient(&self) -> Option<f32> {
        self.single().map(|s| s.coefficient)
    }

    /// Whether any segment was clipped.
    pub fn clipped(&self) -> bool {
        self.segments.iter().any(|s| s.clipped)
    }

    /// Number of non-finite elements of the set.
    pub fn non_finite(&self) -> u64 {
        self.segments.iter().map(|s| u64::from(s.non_finite)).sum()
    }

    /// Name of the first tensor with a non-finite element.
    pub fn first_non_finite(&self) -> Option<&str> {
        let first = self.segments.iter().filter_map(|s| s.first_non_finite).min()?;
        self.tensors.get(first).map(|t| &*t.name)
    }

    fn single(&self) -> Option<&SegmentReport> {
        match self.segments.as_slice() {
            [one] => Some(one),
            _ => None,
        }
    }
}

/// What is known of a tensor before anything is measured.
#[derive(Clone, Debug)]
pub(crate) struct TensorInfo {
    pub(crate) name: Arc<str>,
    pub(crate) dtype: DType,
    pub(crate) elements: u64,
    pub(crate) segment: u32,
}

/// Builds the report from the records that GPU and CPU path write alike.
pub(crate) fn report(clip: &Clip, tensors: &[TensorInfo], sums: &[Sum], outcomes: &[Outcome]) -> Report {
    Report {
        segments: outcomes.iter().map(segment).collect(),
        tensors: tensors
            .iter()
            .zip(sums)
            .map(|(info, sum)| tensor(clip, info, sum, outcomes[info.segment as usize].unscale))
            .collect(),
    }
}

fn segment(outcome: &Outcome) -> SegmentReport {
    let finite = f64::from(outcome.norm_mantissa) * 2f64.powi(outcome.norm_exponent);
    // An infinite norm with a mantissa is finite, but above f32::MAX.
    let non_finite = outcome.norm.is_nan() || (outcome.norm.is_infinite() && outcome.norm_mantissa == 0);
    SegmentReport {
        norm: if non_finite { f64::from(outcome.norm) } else { finite },
        threshold: outcome.threshold,
        coefficient: outcome.coefficient,
        clipped: outcome.flags & CLIPPED != 0,
        changed: outcome.action != KEEP,
        skipped: outcome.flags & SKIPPED != 0,
        non_finite: outcome.non_finite,
        first_non_finite: (outcome.first_non_finite != NONE).then_some(outcome.first_non_finite as usize),
    }
}

fn tensor(clip: &Clip, info: &TensorInfo, sum: &Sum, unscale: f32) -> TensorReport {
    let norm = match (sum.non_finite, sum.nan, clip.non_finite) {
        (0, _, _) | (_, _, NonFinite::Sanitize) => {
            unscaled_norm(sum, Kind::from(clip.norm), unscale).to_f64()
        }
        (_, 0, _) => f64::INFINITY,
        _ => f64::NAN,
    };
    TensorReport {
        name: info.name.clone(),
        dtype: info.dtype,
        elements: info.elements,
        norm,
        segment: info.segment as usize,
        non_finite: sum.non_finite,
    }
}
