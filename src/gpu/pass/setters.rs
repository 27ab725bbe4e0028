//! Changes what is asked of a pass, and what it remembers.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::clip::{Clip, Scope};
use crate::error::{ClipError, PrepareError};
use crate::history::History;
use crate::layout::Job;

use super::Pass;
use super::asked::Asked;
use crate::gpu::mapped::ReadBack;
use crate::gpu::memory;
use crate::gpu::records::Memory;
#[cfg(not(target_arch = "wasm32"))]
use crate::gpu::scope::waited;
use crate::gpu::workspace::measures;

impl Pass {
    /// Changes what is asked, on the device from the next submit of `queue` on; an error changes nothing.
    fn change(
        &self,
        queue: &wgpu::Queue,
        change: impl FnOnce(&mut Asked) -> Result<(), ClipError>,
    ) -> Result<(), ClipError> {
        // Held until the device's copy is on its way, so that threads that set at once leave one of their wishes whole.
        let mut current = self.asked.lock();
        let mut asked = current.clone();
        change(&mut asked)?;
        let (settings, job) = asked.settings(&self.plan.parts);
        queue.write_buffer(&self.workspace.records.settings, 0, bytemuck::cast_slice(&settings));
        let at = std::mem::offset_of!(Job, until) as u64;
        let jobs = &self.workspace.jobs;
        jobs.iter().for_each(|to| queue.write_buffer(to, at, bytemuck::bytes_of(&job)));
        self.measures.store(measures(&asked.clip, &settings), Ordering::Relaxed);
        *current = asked;
        Ok(())
    }

    /// Changes the threshold of every limit, from the next submit of `queue` on: commands that
    /// were recorded but not submitted see the new one too. Groups lose their own; excluded ones stay
    /// excluded.
    ///
    /// Where thresholds adapt, it is what holds until there is a history.
    ///
    /// # Errors
    ///
    /// [`ClipError::Threshold`] for one that is negative or NaN; nothing changes then.
    pub fn set_threshold(&self, queue: &wgpu::Queue, threshold: f32) -> Result<(), ClipError> {
        self.set_thresholds(queue, &vec![threshold; self.plan.limit_count()])
    }

    /// As [`Pass::set_threshold`], one threshold a limit: a segment, for units a tensor, for rows the
    /// only one. Excluded groups have one too, which nothing depends on; it comes before that of rows.
    ///
    /// # Errors
    ///
    /// Also [`ClipError::Thresholds`] for another number than there are limits.
    pub fn set_thresholds(&self, queue: &wgpu::Queue, thresholds: &[f32]) -> Result<(), ClipError> {
        let (required, given) = (self.plan.limit_count(), thresholds.len());
        if given != required {
            return Err(ClipError::Thresholds { required, given });
        }
        let thresholds: Vec<f64> = thresholds.iter().copied().map(f64::from).collect();
        self.change(queue, |asked| {
            let with = |threshold| Clip { threshold, ..asked.clip };
            thresholds.iter().try_for_each(|&threshold| with(threshold).validate())?;
            asked.thresholds = thresholds;
            Ok(())
        })
    }

    /// Changes the limit on the norm of the whole set, as [`Pass::set_threshold`] does the others.
    ///
    /// # Errors
    ///
    /// [`ClipError::Threshold`] for one that is negative or NaN, [`ClipError::Combination`] where the
    /// clip has no such limit.
    pub fn set_total(&self, queue: &wgpu::Queue, threshold: f32) -> Result<(), ClipError> {
        Clip::global_norm(threshold).validate()?;
        if !self.clip().limits_total() {
            let (what, required) = ("a total limit", "a clip that was prepared with one");
            return Err(ClipError::Combination { what, required });
        }
        self.change(queue, |asked| {
            asked.clip = asked.clip.total(threshold);
            Ok(())
        })
    }

    /// Changes the factor that gradients are multiplied by first, as [`Pass::set_threshold`] does
    /// the threshold.
    ///
    /// # Errors
    ///
    /// [`ClipError::Unscale`] for one that is not positive and finite, [`ClipError::LossyUnscale`] where
    /// `f16` gradients would lose small ones; nothing changes then.
    pub fn set_unscale(&self, queue: &wgpu::Queue, unscale: f32) -> Result<(), ClipError> {
        self.change(queue, |asked| {
            asked.clip = asked.clip.unscale(unscale);
            asked.clip.validate()?;
            self.purpose.check(&self.infos, &asked.clip)
        })
    }

    /// Under [`Scope::Row`], clips only the first `rows` rows from the next submit of `queue` on: the others count for
    /// nothing and keep every bit. A pass prepared for as many rows as its buffers can hold then serves any number of
    /// them; this writes a few words for each of a few dispatches.
    ///
    /// # Errors
    ///
    /// [`ClipError::Combination`] for another scope, or more rows than were prepared.
    pub fn set_rows(&self, queue: &wgpu::Queue, rows: u64) -> Result<(), ClipError> {
        if self.clip().scope != Scope::Row {
            return Err(ClipError::Combination { what: "a number of rows", required: "the scope Row" });
        }
        if rows > u64::from(self.plan.parts.rows().1) {
            let (what, required) = ("a number of rows", "at most as many as were prepared");
            return Err(ClipError::Combination { what, required });
        }
        self.change(queue, |asked| {
            asked.rows = Some(rows as u32);
            Ok(())
        })
    }

    /// Records a copy of what the thresholds remember, to be saved in a checkpoint. Allocates a buffer
    /// for it; it is not meant for every step.
    ///
    /// # Errors
    ///
    /// [`PrepareError::Device`] where the buffer cannot be made.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn save_history(
        &self,
        encoder: &mut wgpu::CommandEncoder,
    ) -> Result<ReadBack<History>, PrepareError> {
        waited(self.save_history_async(encoder))
    }

    /// As [`Pass::save_history`], in the form of [`Clipper::prepare_async`](crate::Clipper::prepare_async): the copy is recorded once there is
    /// a buffer for it.
    ///
    /// # Errors
    ///
    /// As [`Pass::save_history`].
    pub async fn save_history_async(
        &self,
        encoder: &mut wgpu::CommandEncoder,
    ) -> Result<ReadBack<History>, PrepareError> {
        memory::save(&self.device, encoder, self.memory(), self.empty_history()).await
    }

    /// Goes on from a saved history, from the next submit of `queue` on.
    ///
    /// # Errors
    ///
    /// [`ClipError::State`] where it is that of another adaptive threshold, other limits or a rule that keeps other series. Bounds may differ.
    pub fn restore_history(&self, queue: &wgpu::Queue, history: &History) -> Result<(), ClipError> {
        let mut history = history.clone();
        // Held as by the other setters.
        let asked = self.asked.lock();
        history.fit(&asked.clip, self.plan.limit_count())?;
        let Memory { tally, states, norms, progress, inputs, watched } = &*self.workspace.records.memory;
        queue.write_buffer(progress, 0, bytemuck::bytes_of(&history.progress));
        queue.write_buffer(tally, 0, bytemuck::bytes_of(&history.tally));
        queue.write_buffer(states, 0, bytemuck::cast_slice(&history.states));
        queue.write_buffer(norms, 0, bytemuck::cast_slice(&history.norms));
        queue.write_buffer(inputs, 0, bytemuck::bytes_of(&history.inputs));
        queue.write_buffer(watched, 0, bytemuck::cast_slice(&history.watched));
        Ok(())
    }

    /// What thresholds remember, on the device.
    pub(in crate::gpu) fn memory(&self) -> &Memory {
        &self.workspace.records.memory
    }

    /// A history in the form of that, of no step.
    pub(in crate::gpu) fn empty_history(&self) -> History {
        History::new(&self.clip(), self.plan.limit_count())
    }

    /// The memory of this pass, for another one with this clip and number of limits.
    pub(in crate::gpu) fn memory_for(&self, clip: &Clip, limits: usize) -> Result<Arc<Memory>, ClipError> {
        let mut own = self.empty_history();
        // A history of no step fits any clip, which this one is not to.
        own.tally.steps = 1;
        own.fit(clip, limits)?;
        Ok(self.workspace.records.memory.clone())
    }
}
