//! Whatever is prepared, waited for by the calling thread: on native targets alone, since a page's thread that waits never hears what it waits for.

use crate::clip::{Clip, Skip};
use crate::error::PrepareError;
use crate::grad::{Grad, SparseGrad};
use crate::optimizer::Optimizer;
use crate::plan::Placement;
use crate::private::Private;

use super::accumulator::{Accumulator, ClippedAccumulator};
use super::clipper::Clipper;
use super::coalescer::Coalescer;
use super::pass::Pass;
use super::private::PrivateSum;
use super::scope::waited;
use super::stepper::Stepper;
use super::trainer::Trainer;

impl Clipper {
    /// Prepares the clipping of `grads`, to be recorded as often as wanted. Allocates scratch
    /// buffers and bind groups and compiles what is not compiled yet, for which it waits; submits nothing
    /// and waits for nothing that runs on the device.
    ///
    /// Tensors without elements, and no tensors at all, are fine: the norm is 0.
    ///
    /// # Errors
    ///
    /// A clip that does not validate; tensors without the shape or parameter that it needs; a buffer
    /// without usage `STORAGE`; ranges that are unaligned, overlap or leave their buffer; more than the
    /// device's limits can hold; a buffer of another device; memory that ran out; a shader that the
    /// driver refuses.
    pub fn prepare(&self, grads: &[Grad], clip: &Clip) -> Result<Pass, PrepareError> {
        waited(self.prepare_async(grads, clip))
    }

    /// As [`Clipper::prepare`] for other buffers, or other tensors: the new pass goes on where
    /// `previous` is, counting its steps and with the history of its adaptive thresholds. Both share
    /// them on the device from here on; nothing is copied.
    ///
    /// # Errors
    ///
    /// As [`Clipper::prepare`], and [`ClipError::State`](crate::ClipError::State) where the adaptive threshold, the number of
    /// limits, or what a rule that leaves out steps keeps differs.
    pub fn prepare_after(&self, previous: &Pass, grads: &[Grad], clip: &Clip) -> Result<Pass, PrepareError> {
        waited(self.prepare_after_async(previous, grads, clip))
    }

    /// Compiles what [`Clipper::prepare`] will need for `tensors` with `clip`, so that it compiles nothing: while
    /// weights are loaded, say, from another thread. Nothing needs to lie on the device yet.
    ///
    /// Kernels depend on how many buffers there are, on element types and on whether there are large, short and
    /// odd tensors among those, not on their exact sizes: [`ClipperOptions::rounded_slots`](crate::ClipperOptions::rounded_slots).
    ///
    /// ```no_run
    /// use gradclip::{Clip, Clipper, DType, Placement};
    ///
    /// # fn run(device: &gradclip::wgpu::Device) -> Result<(), Box<dyn std::error::Error>> {
    /// let clipper = Clipper::new(device)?;
    /// // A model of 148 tensors of bf16, each in a buffer of its own.
    /// let tensor = |buffer| Placement {
    ///     buffer,
    ///     buffer_size: 2 * 768 * 768,
    ///     elements: 768 * 768,
    ///     dtype: DType::Bf16,
    ///     ..Placement::default()
    /// };
    /// let tensors: Vec<Placement> = (0..148).map(tensor).collect();
    /// std::thread::scope(|scope| {
    ///     let warm = scope.spawn(|| clipper.warm_up(&tensors, &Clip::global_norm(1.0)));
    ///     // ... load weights ...
    ///     warm.join().expect("no panic")
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Clipper::prepare`], but for buffers.
    pub fn warm_up(&self, tensors: &[Placement], clip: &Clip) -> Result<(), PrepareError> {
        waited(self.warm_up_async(tensors, clip))
    }

    /// Prepares sums of gradients as they are, each into the accumulator that it names
    /// ([`Grad::accumulator`]). Gradients may be `f32`, `f16` or `bf16`.
    ///
    /// # Errors
    ///
    /// As [`Clipper::prepare`], and [`ClipError::Tensor`](crate::ClipError::Tensor) for a gradient without an accumulator.
    pub fn prepare_accumulation(&self, grads: &[Grad]) -> Result<Accumulator, PrepareError> {
        waited(self.prepare_accumulation_async(grads))
    }

    /// Prepares sums of clipped gradients: each micro-batch by its own norms.
    ///
    /// # Errors
    ///
    /// As [`Clipper::prepare_accumulation`].
    pub fn prepare_clipped_accumulation(
        &self,
        grads: &[Grad],
        clip: &Clip,
    ) -> Result<ClippedAccumulator, PrepareError> {
        waited(self.prepare_clipped_accumulation_async(grads, clip))
    }

    /// Prepares the addition of a sparse gradient's duplicates. Allocates the sum, [min(entries, rows + 1), width] of `f32`, a word
    /// for each row of the table and two for each entry.
    ///
    /// # Errors
    ///
    /// Values of `f64`; a buffer without usage `STORAGE`; ranges that are unaligned or leave their buffer; more than the device's
    /// limits can hold: values of four bindings, indices and rows of the table of one; a sum larger than a buffer may be; memory
    /// that ran out; a shader that the driver refuses.
    pub fn prepare_coalescing(&self, sparse: &SparseGrad) -> Result<Coalescer, PrepareError> {
        waited(self.prepare_coalescing_async(sparse))
    }

    /// Prepares sums of the clipped gradients of examples, each tensor of shape `[examples, ...]`, with noise. What is released is written where
    /// [`Grad::accumulator`] says: `f32` in the tensor's shape without its first axis. Gradients may be `f32`, `f16` or `bf16`.
    ///
    /// # Errors
    ///
    /// As [`Clipper::prepare`]; [`PrepareError::Private`] for a clip that gives an example's norm no bound (any but
    /// [`Clip::per_row_norm`] and [`Clip::automatic`] with a fixed threshold), for an excluded group, and for constants of `private` out of their
    /// range; [`ClipError::Tensor`](crate::ClipError::Tensor) for a gradient without a place for what is released.
    pub fn prepare_private(
        &self,
        grads: &[Grad],
        clip: &Clip,
        private: Private,
    ) -> Result<PrivateSum, PrepareError> {
        waited(self.prepare_private_async(grads, clip, private))
    }

    /// Prepares clip and step. Every gradient names its parameter ([`Grad::parameter`]), and may
    /// name its state ([`Grad::moment`]) and master ([`Grad::master`]), which are allocated otherwise.
    ///
    /// # Errors
    ///
    /// As [`Clipper::prepare`], [`PrepareError::Optimizer`] for constants out of their range, and
    /// [`ClipError::Tensor`](crate::ClipError::Tensor) for a gradient without a parameter, or with some of its state. A device has to bind three
    /// storage buffers a stage more than a gradient, its parameter, its master
    /// and its moments take: 8, the default limit, are enough for all but AMSGrad with masters in separate buffers, which takes 9.
    pub fn prepare_step(
        &self,
        grads: &[Grad],
        clip: &Clip,
        optimizer: impl Into<Optimizer>,
    ) -> Result<Stepper, PrepareError> {
        waited(self.prepare_step_async(grads, clip, optimizer))
    }

    /// As [`Clipper::prepare_step`] for other buffers: goes on with the state, the number of steps and
    /// the history of `previous`, which are shared and not copied.
    ///
    /// # Errors
    ///
    /// As [`Clipper::prepare_step`], and [`ClipError::State`](crate::ClipError::State) where the state is that of other tensors,
    /// another optimiser or another clip.
    pub fn prepare_step_after(
        &self,
        previous: &Stepper,
        grads: &[Grad],
        clip: &Clip,
        optimizer: impl Into<Optimizer>,
    ) -> Result<Stepper, PrepareError> {
        waited(self.prepare_step_after_async(previous, grads, clip, optimizer))
    }

    /// Prepares a loop's step over the mean of `micro_batches` gradients, 1 for a step on every one. [`Clip::unscale`] is what
    /// gradients are multiplied by besides.
    ///
    /// # Errors
    ///
    /// As [`Clipper::prepare_step`] and [`Clipper::prepare_accumulation`], and [`ClipError::Combination`](crate::ClipError::Combination) for no micro-batch or more
    /// than 65,536.
    pub fn prepare_training(
        &self,
        grads: &[Grad],
        clip: &Clip,
        optimizer: impl Into<Optimizer>,
        micro_batches: u32,
    ) -> Result<Trainer, PrepareError> {
        waited(self.prepare_training_async(grads, clip, optimizer, micro_batches))
    }

    /// As [`Clipper::prepare_training`], and a rule leaves out micro-batches before they are summed, each by its own norm: Optax'
    /// `MultiSteps` with `should_skip_update_fn`. One that is left out, or is not finite, adds nothing and does not count, so a step is the mean
    /// of `micro_batches` that went through. The device decides and counts: every micro-batch records sum and step, of which those that are
    /// not due have no workgroups, by indirect dispatches.
    ///
    /// [`Trainer::gate`] is the pass that decides, with reports, [`Pass::inputs`] and a history of its own. Runs of such a trainer cannot be
    /// saved in one call.
    ///
    /// # Errors
    ///
    /// As [`Clipper::prepare_training`], and [`ClipError::Combination`](crate::ClipError::Combination) for a single micro-batch (that is [`Clip::skip`]) or beside a loss
    /// scale.
    pub fn prepare_training_skipping(
        &self,
        grads: &[Grad],
        clip: &Clip,
        optimizer: impl Into<Optimizer>,
        micro_batches: u32,
        skip: Skip,
    ) -> Result<Trainer, PrepareError> {
        waited(self.prepare_training_skipping_async(grads, clip, optimizer, micro_batches, skip))
    }

    /// As [`Clipper::prepare_training`] for other buffers: goes on with the state, the number of steps and the history of `previous`,
    /// which are shared and not copied, but for moments and masters that are named. Sums begin anew.
    ///
    /// # Errors
    ///
    /// As [`Clipper::prepare_training`] and [`Clipper::prepare_step_after`].
    pub fn prepare_training_after(
        &self,
        previous: &Trainer,
        grads: &[Grad],
        clip: &Clip,
        optimizer: impl Into<Optimizer>,
        micro_batches: u32,
    ) -> Result<Trainer, PrepareError> {
        waited(self.prepare_training_after_async(previous, grads, clip, optimizer, micro_batches))
    }
}
