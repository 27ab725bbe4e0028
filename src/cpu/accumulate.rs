//! Sums of micro-batches on slices: the twin of [`Accumulator`](crate::Accumulator) and of
//! `shaders/accumulate.wgsl`.

use std::sync::Arc;

use crate::clip::{Clip, LossScale};
use crate::error::ClipError;
use crate::history::History;
use crate::layout::Outcome;
use crate::report::Report;
use crate::segments::Segments;
use crate::tensor::{Group, TensorInfo};

use super::advance;
use super::block::Values;
use super::fused::{self, Operands};
use super::grads::Slice;
use super::set::parameters;
use super::trace::decided;
use super::update::Action;

/// One gradient of a micro-batch, which is only read, and the accumulator it is added to.
#[derive(Debug)]
pub struct SumMut<'a> {
    operands: Operands<'a>,
    parameter: Option<Values<'a>>,
}

impl<'a> SumMut<'a> {
    /// A gradient, `f32`, `f16` or `bf16`, and an accumulator of as many elements.
    pub fn new(
        name: impl Into<Arc<str>>,
        gradient: impl Into<Slice<'a>>,
        accumulator: &'a mut [f32],
    ) -> SumMut<'a> {
        SumMut {
            operands: Operands::new(name.into(), gradient.into().data, accumulator.into()),
            parameter: None,
        }
    }

    /// Names the parameters that this is the gradient of: a slice of as many elements.
    /// [`Rule::Agc`](crate::Rule::Agc) needs them.
    #[must_use]
    pub fn parameter(self, parameter: impl Into<Slice<'a>>) -> SumMut<'a> {
        SumMut { parameter: Some(parameter.into().data), ..self }
    }

    /// Sets the shape, row-major, for scopes that cut tensors into units or rows.
    #[must_use]
    pub fn shape(mut self, shape: &[u64]) -> SumMut<'a> {
        self.operands.shape = Some(shape.into());
        self
    }

    /// Puts the tensor into a group.
    #[must_use]
    pub fn group(mut self, group: &Group) -> SumMut<'a> {
        self.operands.group = Some(group.clone());
        self
    }
}

/// Adds gradients as they are; the first micro-batch overwrites. [`Accumulator`](crate::Accumulator)
/// says what this is for.
///
/// ```
/// use gradclip::{Clip, cpu::{self, GradMut, SumMut}};
///
/// let mut sum = [f32::NAN; 2];
/// for (batch, g) in [[1.0f32, 4.0], [5.0, 4.0]].iter().enumerate() {
///     cpu::accumulate(&mut [SumMut::new("w", &g[..], &mut sum)], batch == 0)?;
/// }
/// let clip = Clip::global_norm(1.0).unscale(0.5); // the mean, (3, 4)
/// cpu::clip(&mut [GradMut::new("w", &mut sum)], &clip)?;
/// assert_eq!(sum, [0.6, 0.8]);
/// # Ok::<(), gradclip::ClipError>(())
/// ```
///
/// # Errors
///
/// An accumulator of another length than its gradient. Nothing is written then.
pub fn accumulate(sums: &mut [SumMut<'_>], first: bool) -> Result<(), ClipError> {
    sums.iter().try_for_each(|s| s.operands.check("an accumulator"))?;
    let infos: Vec<TensorInfo> = sums.iter().map(|s| s.operands.info()).collect();
    let parts = Segments::in_one(&infos)?;
    // All zeros keep gradients as they are.
    add(sums, first, &parts, &[bytemuck::Zeroable::zeroed()]);
    Ok(())
}

/// Adds gradients as `clip` leaves them: each micro-batch is clipped by its own norms.
///
/// # Errors
///
/// As [`accumulate`] and [`clip_with`](super::clip_with()). Nothing is written then.
pub fn accumulate_clipped(
    sums: &mut [SumMut<'_>],
    first: bool,
    clip: &Clip,
    history: &mut History,
) -> Result<Report, ClipError> {
    sums.iter().try_for_each(|s| s.operands.check("an accumulator"))?;
    let infos: Vec<TensorInfo> = sums
        .iter()
        .map(|s| TensorInfo { has_parameter: s.parameter.is_some(), ..s.operands.info() })
        .collect();
    let parts = Segments::new(&infos, clip)?;
    let given: Vec<Option<Values<'_>>> = sums.iter().map(|s| s.parameter).collect();
    let parameters = parameters(&given, &infos, &parts)?;
    history.fit(clip, parts.limits.len())?;
    let gradients: Vec<Values<'_>> = sums.iter().map(|s| s.operands.gradient).collect();
    let trace = decided(&gradients, &parameters, &infos, &parts, clip, history);
    let hyper = LossScale::add_to(clip.loss_scale, bytemuck::Zeroable::zeroed());
    advance::advance(&hyper, &history.tally, &mut history.progress);
    add(sums, first, &parts, &trace.outcomes);
    Ok(trace.report.advanced(clip, &history.progress, None))
}

fn add(sums: &mut [SumMut<'_>], begins: bool, parts: &Segments, outcomes: &[Outcome]) {
    let members = sums.iter_mut().map(|SumMut { operands, .. }| {
        (operands.gradient, operands.target.reborrowed(), &mut [][..], Action::Add { begins }, None)
    });
    fused::run(members, parts, outcomes, &mut Vec::new());
}
