//! A clip prepared for tensors that come again: what depends on their form alone is done once.

use crate::clip::Clip;
use crate::error::ClipError;
use crate::history::History;
use crate::report::{Report, SegmentReport};
use crate::segments::check_in_place;
use crate::tensor::{DType, TensorInfo};

use super::block::{Block, Values};
use super::flow::{clip_in_double, clip_in_single};
use super::grads::{GradMut, Slice, SliceMut};
use super::kept::Kept;
use super::recycled::recycled;
use super::room::Room;
use super::set::Set;
use super::workspace::Workspace;

/// A clip for tensors of one form, prepared by [`prepare`]: the CPU path's [`Pass`](crate::Pass).
///
/// Names, shapes and groups are checked once, and a step allocates nothing where all gradients are of `f32`, `f16` or `bf16`
/// (but for what rayon may for its own queue). It has its own [`History`], so that thresholds may adapt.
#[derive(Debug)]
pub struct Prepared {
    pub(super) kept: Kept,
    /// Of a set that is measured as `f64`, whose records are others.
    report: Option<Report>,
    pub(super) room: Room,
}

/// Prepares `clip` for tensors like these, whose elements are not read: names, lengths, types, shapes, groups, and whether
/// there are parameters.
///
/// ```
/// use gradclip::{Clip, cpu::{self, GradMut}};
///
/// let (mut w, mut b) = (vec![0.0f32; 4], vec![0.0f32; 2]);
/// let like = [GradMut::new("w", &mut w), GradMut::new("b", &mut b)];
/// let mut prepared = cpu::prepare(&like, &Clip::global_norm(4.0))?;
/// for _ in 0..3 {
///     // Where the backward pass would be:
///     w.copy_from_slice(&[-2.0, 0.0, 0.0, 4.0]);
///     b.copy_from_slice(&[1.0, -2.0]);
///     prepared.clip([&mut w[..], &mut b])?;
///     assert_eq!((w[3], b[1]), (3.2, -1.6));
/// }
/// assert_eq!(prepared.norm(), Some(5.0));
/// assert_eq!(prepared.report().map(|report| report.step), Some(3));
/// # Ok::<(), gradclip::ClipError>(())
/// ```
///
/// # Errors
///
/// A [`Clip`] that does not validate, or tensors without what it needs.
pub fn prepare(grads: &[GradMut<'_>], clip: &Clip) -> Result<Prepared, ClipError> {
    let (set, _) = Set::of(grads, clip)?;
    let workspace = Workspace::in_place(&set.infos, &set.parts, clip);
    Ok(Prepared { kept: Kept::new(set, clip, workspace)?, report: None, room: Room::default() })
}

impl Prepared {
    /// Clips gradients in place, those of each tensor in one slice, in the order prepared: the same bits as
    /// [`clip_with`](super::clip_with()). Runs on rayon's current thread pool; small sets run on the calling thread.
    ///
    /// # Errors
    ///
    /// [`ClipError::Tensor`] for a tensor of another length or type than was prepared, and where there are more or fewer;
    /// [`ClipError::Combination`] for [`Rule::Agc`](crate::Rule::Agc), which needs
    /// [`Prepared::clip_with_parameters`]. Gradients are then untouched.
    pub fn clip<'a, T>(&mut self, grads: impl IntoIterator<Item = T>) -> Result<(), ClipError>
    where
        T: Into<SliceMut<'a>>,
    {
        if self.kept.set.parts.parameters {
            return Err(ClipError::Combination {
                what: "adaptive gradient clipping",
                required: "parameters with the gradients: `Prepared::clip_with_parameters`",
            });
        }
        let mut blocks = recycled(std::mem::take(&mut self.room.blocks));
        blocks.extend(grads.into_iter().map(|g| g.into().block));
        let result = self.clip_blocks(&mut blocks, &[]);
        self.room.blocks = recycled(blocks);
        result
    }

    /// As [`Prepared::clip`], with the parameter of each gradient: a slice of as many elements.
    ///
    /// # Errors
    ///
    /// As [`Prepared::clip`], also for parameters.
    pub fn clip_with_parameters<'a, T, P>(
        &mut self,
        grads: impl IntoIterator<Item = (T, P)>,
    ) -> Result<(), ClipError>
    where
        T: Into<SliceMut<'a>>,
        P: Into<Slice<'a>>,
    {
        let mut blocks = recycled(std::mem::take(&mut self.room.blocks));
        let mut parameters = recycled(std::mem::take(&mut self.room.parameters));
        for (i, (grad, parameter)) in grads.into_iter().enumerate() {
            blocks.push(grad.into().block);
            // Those of excluded tensors are not read.
            let excluded = self.kept.set.infos.get(i).is_some_and(TensorInfo::excluded);
            parameters.push(if excluded { Values::F32(&[]) } else { parameter.into().data });
        }
        let result = self.clip_blocks(&mut blocks, &parameters);
        (self.room.blocks, self.room.parameters) = (recycled(blocks), recycled(parameters));
        result
    }

    fn clip_blocks(&mut self, blocks: &mut [Block<'_>], parameters: &[Values<'_>]) -> Result<(), ClipError> {
        self.kept.check(blocks.iter().map(|b| (b.len(), b.dtype())))?;
        self.check_parameters(parameters)?;
        let Prepared { kept: Kept { clip, thresholds, set, workspace, history, measured }, report, room } =
            self;
        *measured = false;
        if set.double {
            *report = Some(clip_in_double(blocks, parameters, set, (clip, thresholds), history));
            return Ok(());
        }
        clip_in_single(blocks, parameters, set, (clip, thresholds), workspace, history, room);
        Ok(())
    }

    /// That parameters are as long as their gradients, and measured as these are.
    fn check_parameters(&self, parameters: &[Values<'_>]) -> Result<(), ClipError> {
        let Set { infos, double, .. } = &self.kept.set;
        for (i, (parameter, info)) in parameters.iter().zip(infos).enumerate() {
            let len = if info.excluded() { 0 } else { info.elements };
            if parameter.len() as u64 != len {
                let required = format!("a parameter of {len} elements");
                return Err(self.kept.wrong(i, required, parameter.len().to_string()));
            }
            if parameter.dtype() == DType::F64 && !double {
                let required = "a parameter of f32, f16 or bf16, as prepared".to_owned();
                return Err(self.kept.wrong(i, required, DType::F64.to_string()));
            }
        }
        Ok(())
    }

    /// Changes the threshold of every limit from the next step on. Groups lose their own; excluded ones stay excluded. Where
    /// thresholds adapt, it is what holds until there is a history.
    ///
    /// # Errors
    ///
    /// [`ClipError::Threshold`] for one that is negative or NaN; nothing changes then.
    pub fn set_threshold(&mut self, threshold: impl Into<f64>) -> Result<(), ClipError> {
        self.kept.set_threshold(threshold.into())
    }

    /// Changes the factor that gradients are multiplied by first, from the next step on.
    ///
    /// # Errors
    ///
    /// [`ClipError::Unscale`] for one that is not positive and finite, [`ClipError::LossyUnscale`] where
    /// `f16` gradients would lose small ones; nothing changes then.
    pub fn set_unscale(&mut self, unscale: f32) -> Result<(), ClipError> {
        let clip = self.kept.with_unscale(unscale)?;
        check_in_place(&self.kept.set.infos, &clip)?;
        self.kept.clip = clip;
        Ok(())
    }

    /// Sets the loss of the next step: as [`History::set_loss`].
    pub fn set_loss(&mut self, loss: f32) {
        self.kept.history.set_loss(loss);
    }

    /// Sets the norm of the next step: as [`History::set_norm`].
    pub fn set_norm(&mut self, norm: f32) {
        self.kept.history.set_norm(norm);
    }

    /// What thresholds and the loss scale remember.
    pub fn history(&self) -> &History {
        &self.kept.history
    }

    /// Goes on from another history, of a step that was saved say.
    ///
    /// # Errors
    ///
    /// [`ClipError::State`] for the history of another clip; nothing changes then.
    pub fn restore_history(&mut self, history: History) -> Result<(), ClipError> {
        self.kept.restore_history(history)
    }

    /// The norm of the last step's gradients before they were clipped, excluded groups left out, where it is one segment; none
    /// before the first step. [`Report::norm`] without the rest of a report.
    pub fn norm(&self) -> Option<f64> {
        self.whole().map(|segment| segment.norm)
    }

    /// The coefficient of the last step, as [`Prepared::norm`].
    pub fn coefficient(&self) -> Option<f64> {
        self.whole().map(|segment| segment.coefficient)
    }

    fn whole(&self) -> Option<SegmentReport> {
        self.report.as_ref().map_or_else(|| self.kept.whole(), |report| report.single().cloned())
    }

    /// What the last step measured and did; none before the first. This allocates.
    pub fn report(&self) -> Option<Report> {
        self.report.clone().or_else(|| self.kept.begun().then(|| self.kept.report(None)))
    }
}
