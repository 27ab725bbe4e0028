//! What a clip did, on the host.

use std::sync::Arc;

use crate::clip::{Clip, NonFinite, NormType, Summation};
use crate::combine::combine;
use crate::layout::{
    CLAMP, CLIPPED, GAVE_UP, KEEP, LET_THROUGH, NONE, Outcome, Progress, REASON_ABOVE, REASON_LOSS,
    REASON_LOSS_NON_FINITE, REASON_NON_FINITE, REASON_NORM, SANITIZE, SIGN, SKIPPED, Sum, TOWARD_ZERO, Tally,
};
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
    /// The whole set, where it is limited along with its segments, or a rule that leaves out steps looks at it.
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
    /// Norm of the whole set before clipping, excluded tensors left out, in every scope: the bits that a clip with
    /// [`Scope::Global`](crate::Scope::Global) has. For units and rows, which are summed one by one, it may be the `f32` next to that,
    /// within the same 0.65 ulp of exact; with any p but 1, 2 and infinity nothing is promised to the bit. Infinite or NaN as
    /// [`SegmentReport::norm`] is.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::clip::number::serialize"))]
    pub global_norm: f64,
    /// What coefficients leave of that norm: of elements times their coefficients, before each is rounded to its type. `None`
    /// for units and rows, whose outcomes stay on the device, and where elements are changed one by one (value and sign
    /// clipping).
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::clip::number::optional::serialize"))]
    pub clipped_norm: Option<f64>,
    /// What the next loss is multiplied by, where the clip has a [`LossScale`](crate::LossScale).
    pub loss_scale: Option<f64>,
    /// Steps of the optimiser so far, skipped ones left out; 0 where gradients are only clipped.
    pub updates: u64,
    /// Steps skipped one after the other up to this one, 0 where it was not; 0 where gradients are only clipped.
    pub skips: u64,
    /// What the rule that leaves out steps found, where the clip has a [`Skip`](crate::Skip).
    pub skip: Option<SkipReport>,
    /// The learning rate of this step, an `f32`; `None` where gradients are only clipped.
    pub lr: Option<f64>,
}

/// What a [`Skip`](crate::Skip) found in a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SkipReport {
    /// The norm was above the bound.
    pub above: bool,
    /// The norm was so many standard deviations above those before it.
    pub norm: bool,
    /// So was the loss.
    pub loss: bool,
    /// The loss was not finite.
    pub loss_non_finite: bool,
    /// A gradient was not finite, and what is not finite is skipped.
    pub non_finite: bool,
    /// Whether there were more such steps one after the other than the rule leaves out.
    pub gave_up: bool,
    /// Whether the step went through all the same.
    pub let_through: bool,
    /// Such steps one after the other, this one among them; 0 where nothing was found.
    pub in_a_row: u64,
    /// Steps that were left out for a spike so far.
    pub spikes: u64,
}

impl SkipReport {
    fn of(progress: &Progress) -> SkipReport {
        let has = |reason: u32| progress.reasons & reason != 0;
        SkipReport {
            above: has(REASON_ABOVE),
            norm: has(REASON_NORM),
            loss: has(REASON_LOSS),
            loss_non_finite: has(REASON_LOSS_NON_FINITE),
            non_finite: has(REASON_NON_FINITE),
            gave_up: has(GAVE_UP),
            let_through: has(LET_THROUGH),
            in_a_row: progress.strikes.into(),
            spikes: progress.spikes.into(),
        }
    }

    /// Whether the step was a spike: all of its gradients may be finite.
    pub fn is_spike(&self) -> bool {
        self.above || self.norm || self.loss || self.loss_non_finite
    }

    /// Whether an optimiser's step was left out, for a spike or for what is not finite. In place, segments that are finite are clipped all
    /// the same beside one that is not.
    pub fn left_out(&self) -> bool {
        (self.is_spike() || self.non_finite) && !self.let_through
    }
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
    /// Whether a non-finite element, or a rule that leaves out steps, made the clip leave the gradients alone.
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
    /// Norm before clipping, as in [`SegmentReport::norm`]; NaN where it is handed in ([`Clip::use_norm`]).
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

/// What was measured of a tensor, or of the whole set.
#[derive(Clone, Copy)]
pub(crate) struct Measured {
    /// The norm of its finite elements.
    pub(crate) norm: f64,
    /// How many of its elements are not finite, and whether all of these are infinite.
    pub(crate) non_finite: u64,
    pub(crate) infinite: bool,
    /// How many elements of its parameter are not finite.
    pub(crate) non_finite_parameters: u64,
}

/// What is told of segments: each of them, and that of the whole set.
pub(crate) struct Decided {
    pub(crate) segments: Vec<SegmentReport>,
    pub(crate) total: Option<SegmentReport>,
    /// Whether elements are multiplied by coefficients and nothing else.
    pub(crate) multiplies: bool,
}

/// Builds the report from what was decided, from what was measured of the whole set without excluded tensors, and of the tensor
/// of each index.
pub(crate) fn build(
    clip: &Clip,
    tensors: &[TensorInfo],
    parts: &Segments,
    Decided { mut segments, total, multiplies }: Decided,
    tally: &Tally,
    whole: &Measured,
    measured: impl Fn(usize) -> Measured,
) -> Report {
    for (segment, limit) in segments.iter_mut().zip(&parts.limits) {
        segment.name.clone_from(&limit.name);
        segment.excluded = limit.excluded;
    }
    // Norms that were handed in say nothing of tensors.
    let unknown = Measured { norm: f64::NAN, non_finite: 0, infinite: false, non_finite_parameters: 0 };
    let global_norm = match clip.use_norm {
        true => segments.first().map_or(f64::NAN, |whole| whole.norm),
        false => norm_told(clip, whole),
    };
    if clip.use_norm {
        segments.iter_mut().filter(|s| s.excluded).for_each(|s| s.norm = f64::NAN);
    }
    let measured = |i: usize| if clip.use_norm { unknown } else { measured(i) };
    let one = |(i, info): (usize, &TensorInfo)| tensor(clip, info, parts.owners[i].first(), &measured(i));
    // Under the policy Zero nothing is left of an infinite norm.
    let left = |s: &SegmentReport| if s.coefficient == 0.0 { 0.0 } else { s.norm * s.coefficient };
    let limited = segments.iter().filter(|s| !s.excluded).map(left);
    let clipped_norm = (multiplies && !parts.cut()).then(|| combined_norm(limited, clip.norm));
    Report {
        segments,
        total,
        global_norm,
        clipped_norm,
        loss_scale: None,
        updates: 0,
        skips: 0,
        skip: None,
        lr: None,
        tensors: tensors.iter().enumerate().map(one).collect(),
        step: tally.steps.into(),
        clipped_steps: tally.clipped_steps.into(),
        skipped_steps: tally.skipped_steps.into(),
        clipped_segments: tally.clipped.into(),
        changed_segments: tally.changed.into(),
    }
}

impl Report {
    /// The report of a step after which the device, or the CPU path, had got so far.
    pub(crate) fn advanced(self, clip: &Clip, progress: &Progress, lr: Option<f32>) -> Report {
        Report {
            loss_scale: clip.loss_scale.map(|_| progress.scale.into()),
            updates: progress.updates.into(),
            skips: progress.skips.into(),
            lr: lr.map(f64::from),
            ..self.judged(clip, progress)
        }
    }

    /// With what the rule that leaves out steps found.
    pub(crate) fn judged(self, clip: &Clip, progress: &Progress) -> Report {
        Report { skip: clip.skip.map(|_| SkipReport::of(progress)), ..self }
    }
}

/// A norm as it is told of elements of which some may not be finite.
fn norm_told(clip: &Clip, measured: &Measured) -> f64 {
    match (measured.non_finite, measured.infinite, clip.non_finite) {
        (0, _, _) | (_, _, NonFinite::Sanitize) => measured.norm,
        (_, true, _) => f64::INFINITY,
        _ => f64::NAN,
    }
}

/// The norm of what has these norms, relative to the largest of them, so that no power leaves the range.
fn combined_norm(norms: impl Iterator<Item = f64> + Clone, norm: NormType) -> f64 {
    let largest = norms.clone().fold(0.0, f64::max);
    if norms.clone().any(f64::is_nan) {
        return f64::NAN;
    }
    if largest == 0.0 || largest.is_infinite() {
        return largest;
    }
    let ratios = norms.map(|norm| norm / largest);
    match norm {
        NormType::One => largest * ratios.sum::<f64>(),
        NormType::Two => largest * ratios.map(|ratio| ratio * ratio).sum::<f64>().sqrt(),
        NormType::Inf => largest,
        NormType::P(p) => largest * ratios.map(|ratio| ratio.powf(p)).sum::<f64>().powf(1.0 / p),
    }
}

fn tensor(clip: &Clip, info: &TensorInfo, segment: u32, measured: &Measured) -> TensorReport {
    TensorReport {
        name: info.name.clone(),
        dtype: info.dtype,
        elements: info.elements,
        norm: norm_told(clip, measured),
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
    let multiplies = outcomes.iter().all(|o| !matches!(o.action & !(SANITIZE | TOWARD_ZERO), CLAMP | SIGN));
    let decided = Decided { segments, total, multiplies };
    let mut place = vec![0; tensors.len()];
    parts.order.iter().enumerate().for_each(|(at, &tensor)| place[tensor as usize] = at);
    let summation = Summation::from(clip.norm);
    let measured = |sum: &Sum, parameter: Option<&Sum>| Measured {
        norm: unscaled_norm(sum, summation, tally.unscale).to_f64(),
        non_finite: sum.non_finite.into(),
        infinite: sum.nan == 0,
        non_finite_parameters: parameter.map_or(0, |p| p.non_finite.into()),
    };
    let limited = place.iter().zip(tensors).filter(|(_, info)| !info.excluded()).map(|(&at, _)| sums[at]);
    let whole = measured(&combine(limited, summation), None);
    build(clip, tensors, parts, decided, tally, &whole, |i| {
        let parameter = if parts.parameters { sums.get(place[i] + tensors.len()) } else { None };
        measured(&sums[place[i]], parameter)
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
