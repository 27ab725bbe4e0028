//! What a pass hands over between ranks after its norm half, and takes back before its apply half.

use crate::error::ClipError;
use crate::exchange::{Exchange, LIMITS_UPDATES, Sums};
use crate::layout::{Partial, Sum};

use super::pass::Pass;
use super::stepper::Stepper;

impl Pass {
    /// What this rank exchanges with others. `counts` has one word a tensor: false where another rank counts the same elements.
    ///
    /// # Errors
    ///
    /// [`ClipError::Combination`] for a clip that does not mean the same over several ranks, [`ClipError::Count`] for another number of words.
    pub fn exchange(&self, counts: &[bool]) -> Result<Exchange, ClipError> {
        Exchange::new(self.infos(), &self.plan().parts, &self.clip(), (counts, false))
    }

    /// Records a copy of what the norm half measured to the beginning of `to`, of [`Exchange::measured_bytes`] and usage `COPY_DST`,
    /// for [`Exchange::begin`].
    ///
    /// # Errors
    ///
    /// [`ClipError::Count`] for a smaller buffer; nothing is recorded then.
    pub fn record_measured(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        to: &wgpu::Buffer,
    ) -> Result<(), ClipError> {
        let partials = u64::from(self.plan().partials) * size_of::<Partial>() as u64;
        let sums = (self.plan().tensor_sum_count() * size_of::<Sum>()) as u64;
        if to.size() < partials + sums {
            return Err(ClipError::Count { required: (partials + sums) as usize, given: to.size() as usize });
        }
        let records = self.records();
        for (from, at, bytes) in [(&records.partials, 0, partials), (&records.tensor_sums, partials, sums)] {
            if bytes > 0 {
                encoder.copy_buffer_to_buffer(from, 0, to, at, bytes);
            }
        }
        Ok(())
    }

    /// Puts the sums of all ranks in the place of what was measured here, from the next submit of `queue` on, whose commands are to be those of
    /// the apply half.
    ///
    /// # Errors
    ///
    /// [`ClipError::Combination`] for an exchange that was not reduced, [`ClipError::Count`] for that of another set. Nothing is written then.
    pub fn write_sums(&self, queue: &wgpu::Queue, exchange: &mut Exchange) -> Result<(), ClipError> {
        let (plan, records) = (self.plan(), self.records());
        let Sums { tensors, segments, first } =
            exchange.end(plan.tensor_sum_count(), plan.segment_sum_count())?;
        queue.write_buffer(&records.tensor_sums, 0, bytemuck::cast_slice(tensors));
        let at = (first * size_of::<Sum>()) as u64;
        queue.write_buffer(&records.segment_sums, at, bytemuck::cast_slice(segments));
        Ok(())
    }
}

impl Stepper {
    /// As [`Pass::exchange`], for [`Stepper::record_norm`] and [`Stepper::record_update`] with [`Pass::record_measured`] and
    /// [`Pass::write_sums`] of [`Stepper::pass`] between them.
    ///
    /// # Errors
    ///
    /// As [`Pass::exchange`], and [`ClipError::Combination`] for an optimiser whose updates have factors that follow from whole tensors.
    pub fn exchange(&self, counts: &[bool]) -> Result<Exchange, ClipError> {
        if self.has_ratios() {
            return Err(LIMITS_UPDATES);
        }
        let pass = self.pass();
        Exchange::new(pass.infos(), &pass.plan().parts, &pass.clip(), (counts, true))
    }
}
