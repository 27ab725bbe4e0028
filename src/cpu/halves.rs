//! Prepared clips and steps in two halves, between which sums over several machines may be put in the place of those measured here: what
//! `Pass::record_norm` and `Pass::record_apply` are on the GPU.

use crate::error::ClipError;
use crate::exchange::{Exchange, LIMITS_UPDATES};

use super::flow::apply_in_single;
use super::grads::{Slice, SliceMut};
use super::kept::Kept;
use super::parameter::ParameterMut;
use super::prepared::Prepared;
use super::recycled::recycled;
use super::room::Room;
use super::step::PreparedStep;

/// The norm half of gradients in the order prepared.
fn measure<'a, T: Into<Slice<'a>>>(
    (kept, room): (&mut Kept, &mut Room),
    grads: impl IntoIterator<Item = T>,
) -> Result<(), ClipError> {
    if kept.set.parts.parameters || kept.set.double {
        return Err(ClipError::Combination {
            what: "a step in two halves on the CPU path",
            required: "gradients of f32, f16 or bf16, and another rule than adaptive gradient clipping",
        });
    }
    let mut values = recycled(std::mem::take(&mut room.values));
    values.extend(grads.into_iter().map(|g| g.into().data));
    let checked = kept.check(values.iter().map(|v| (v.len(), v.dtype())));
    if checked.is_ok() {
        kept.measure(&values, &[]);
    }
    room.values = recycled(values);
    checked
}

impl Prepared {
    /// The first half of a step: measures gradients, and writes none. [`Prepared::apply`] is the second, between which sums over
    /// several machines may be put in the place of these: see [`exchange`](crate::exchange).
    ///
    /// # Errors
    ///
    /// As [`Prepared::clip`], and [`ClipError::Combination`] for a set with `f64`, or for adaptive gradient clipping, which has no halves here.
    pub fn measure<'a, T>(&mut self, grads: impl IntoIterator<Item = T>) -> Result<(), ClipError>
    where
        T: Into<Slice<'a>>,
    {
        measure((&mut self.kept, &mut self.room), grads)
    }

    /// The second half: thresholds and coefficients follow from the sums, and gradients from these.
    ///
    /// # Errors
    ///
    /// As [`Prepared::clip`], and [`ClipError::Combination`] where nothing was measured since the last step. Nothing changes then.
    pub fn apply<'a, T>(&mut self, grads: impl IntoIterator<Item = T>) -> Result<(), ClipError>
    where
        T: Into<SliceMut<'a>>,
    {
        let mut blocks = recycled(std::mem::take(&mut self.room.blocks));
        blocks.extend(grads.into_iter().map(|g| g.into().block));
        let checked = self.kept.check(blocks.iter().map(|b| (b.len(), b.dtype())));
        let result = checked.and_then(|()| self.kept.conclude());
        if result.is_ok() {
            let Prepared { kept: Kept { clip, set, workspace, history, .. }, room, .. } = self;
            apply_in_single(&mut blocks, set, clip, workspace, history, room);
        }
        self.room.blocks = recycled(blocks);
        result
    }

    /// What this rank exchanges with others. `counts` has one word a tensor: false where another rank counts the same elements.
    ///
    /// # Errors
    ///
    /// [`ClipError::Combination`] for a clip or a set that does not mean the same over several ranks, [`ClipError::Count`] for another number of
    /// words.
    pub fn exchange(&self, counts: &[bool]) -> Result<Exchange, ClipError> {
        self.kept.exchange(counts, false)
    }

    /// Begins an exchange with what was measured.
    ///
    /// # Errors
    ///
    /// [`ClipError::Combination`] where nothing was measured since the last step, [`ClipError::Count`] for the exchange of another set.
    pub fn begin_exchange(&self, exchange: &mut Exchange) -> Result<(), ClipError> {
        self.kept.begin_exchange(exchange)
    }

    /// Puts the sums of all ranks in the place of what was measured here.
    ///
    /// # Errors
    ///
    /// As [`Prepared::begin_exchange`], and [`ClipError::Combination`] for an exchange that was not reduced.
    pub fn end_exchange(&mut self, exchange: &mut Exchange) -> Result<(), ClipError> {
        self.kept.end_exchange(exchange)
    }
}

impl PreparedStep {
    /// The first half of a step: measures gradients, and writes nothing. [`PreparedStep::update`] is the second: as
    /// [`Prepared::measure`].
    ///
    /// # Errors
    ///
    /// As [`PreparedStep::step`], and [`ClipError::Combination`] for adaptive gradient clipping, which has no halves here.
    pub fn measure<'a, T>(&mut self, grads: impl IntoIterator<Item = T>) -> Result<(), ClipError>
    where
        T: Into<Slice<'a>>,
    {
        measure((&mut self.kept, &mut self.room), grads)
    }

    /// The second half: thresholds and coefficients follow from the sums, and the step from these.
    ///
    /// # Errors
    ///
    /// As [`PreparedStep::step`], and [`ClipError::Combination`] where nothing was measured since the last step. Nothing changes then.
    pub fn update<'a, G, P>(&mut self, tensors: impl IntoIterator<Item = (G, P)>) -> Result<(), ClipError>
    where
        G: Into<Slice<'a>>,
        P: Into<ParameterMut<'a>>,
    {
        self.with_room(tensors, |own, gradients, targets| {
            own.kept.conclude()?;
            own.follow(gradients, targets, &[]);
            Ok(())
        })
    }

    /// What this rank exchanges with others: as [`Prepared::exchange`].
    ///
    /// # Errors
    ///
    /// As [`Prepared::exchange`], and [`ClipError::Combination`] for an optimiser whose updates have factors that follow from whole tensors.
    pub fn exchange(&self, counts: &[bool]) -> Result<Exchange, ClipError> {
        if self.limits_updates() {
            return Err(LIMITS_UPDATES);
        }
        self.kept.exchange(counts, true)
    }

    /// As [`Prepared::begin_exchange`].
    ///
    /// # Errors
    ///
    /// As [`Prepared::begin_exchange`].
    pub fn begin_exchange(&self, exchange: &mut Exchange) -> Result<(), ClipError> {
        self.kept.begin_exchange(exchange)
    }

    /// As [`Prepared::end_exchange`].
    ///
    /// # Errors
    ///
    /// As [`Prepared::end_exchange`].
    pub fn end_exchange(&mut self, exchange: &mut Exchange) -> Result<(), ClipError> {
        self.kept.end_exchange(exchange)
    }
}
