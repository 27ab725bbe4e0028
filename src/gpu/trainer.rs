//! What a training loop does with gradients: sums over micro-batches, and an optimiser's step after the last of them.

use std::mem::offset_of;
use std::sync::{Mutex, MutexGuard, PoisonError};

use wgpu::BufferUsages as Usage;

use crate::clip::{Clip, Skip};
use crate::error::{ClipError, OptimizerError, PrepareError, ReadBackError};
use crate::grad::Grad;
use crate::layout::Progress;
use crate::optimizer::Optimizer;

use super::accumulator::Accumulator;
use super::buffers::filled;
use super::clipper::Clipper;
use super::gate::Gate;
use super::mapped::ReadBack;
use super::moments::Moment;
use super::pass::{Pass, begin};
use super::purpose::Purpose;
use super::scope::caught;
use super::stepper::Stepper;

/// Everything between gradients and parameters, prepared once and recorded for every micro-batch: the sum of gradients, and after
/// the last micro-batch of a step unscaling, norm, clip, update, and the next loss scale. It knows by itself which micro-batch
/// begins a sum and which ends it.
///
/// A [`Grad`] describes a parameter with all that belongs to it, once: the gradient, the parameter, of 16 bits perhaps with its
/// [`master`](Grad::master), [`moments`](Grad::moment) and [`accumulator`](Grad::accumulator). What is not named is allocated.
///
/// Bytes that a step of AdamW moves for an element, gradients of `f32` (of 16 bits 4 less without accumulation):
///
/// | | `f32` parameters | 16 bits and masters | `bf16`, rounded by chance |
/// |---|---|---|---|
/// | norm and step | 32 | 34 | 28 |
/// | a further micro-batch's sum | 12, the first 8 | 12, the first 8 | 12, the first 8 |
/// | kept besides gradient and parameter | 8, accumulating 12 | 12, accumulating 16 | 8, accumulating 12 |
///
/// ```no_run
/// # fn run(device: &gradclip::wgpu::Device, queue: &gradclip::wgpu::Queue, w: &gradclip::wgpu::Buffer,
/// #        dw: &gradclip::wgpu::Buffer) -> Result<(), Box<dyn std::error::Error>> {
/// use gradclip::{Adam, Clip, Clipper, DType, Grad, LossScale, Schedule};
///
/// let schedule = Schedule::cosine(1e-3, 0.0, 10_000)?.warm_up(100);
/// let grads = [Grad::new("w", dw).parameter(w, 0, DType::Bf16)];
/// let clip = Clip::global_norm(1.0).loss_scale(LossScale::default());
/// let trainer = Clipper::new(device)?.prepare_training(&grads, &clip, Adam::adamw(1e-3), 4)?;
/// let mut step = 0;
/// for epoch in 0..10 {
///     for micro_batch in 0..3998 {
///         let mut encoder = device.create_command_encoder(&Default::default());
///         // … forward and backward into `dw`, the loss times the first word of `trainer.progress()` …
///         let stepped = trainer.record(&mut encoder);
///         queue.submit([encoder.finish()]);
///         if stepped {
///             step += 1;
///             trainer.set_lr(queue, schedule.at(step))?; // of the next step
///         }
///     }
///     // The epoch ends with two micro-batches that make no whole step: their mean.
///     let mut encoder = device.create_command_encoder(&Default::default());
///     if trainer.finish(&mut encoder) {
///         queue.submit([encoder.finish()]);
///         step += 1;
///         trainer.set_lr(queue, schedule.at(step))?;
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Trainer {
    /// What restores a run.
    #[cfg(feature = "checkpoint")]
    clipper: Clipper,
    /// As they were described.
    grads: Vec<Grad>,
    stepper: Stepper,
    sums: Option<Sums>,
    /// Where micro-batches may be left out.
    gate: Option<Gate>,
    micro_batches: u32,
    /// Micro-batches recorded since the last step; with a gate, whether those that the device counts are to be forgotten.
    summed: Mutex<u32>,
}

/// The sums of micro-batches.
#[derive(Debug)]
struct Sums {
    accumulator: Accumulator,
    places: Vec<Moment>,
    /// What the mean over each number of micro-batches takes beyond that over all of them.
    corrections: wgpu::Buffer,
}

/// Each has a word on the device.
const MOST_MICRO_BATCHES: u32 = 1 << 16;

/// Where [`Progress`] has the correction.
const CORRECTION: u64 = offset_of!(Progress, mean_correction) as u64;

impl Clipper {
    /// As [`Clipper::prepare_training`], in the form of [`Clipper::prepare_async`].
    ///
    /// # Errors
    ///
    /// As [`Clipper::prepare_training`].
    pub async fn prepare_training_async(
        &self,
        grads: &[Grad],
        clip: &Clip,
        optimizer: impl Into<Optimizer>,
        micro_batches: u32,
    ) -> Result<Trainer, PrepareError> {
        self.prepared_training(grads, clip, optimizer.into(), (micro_batches, None), None).await
    }

    /// As [`Clipper::prepare_training_skipping`], in the form of [`Clipper::prepare_async`].
    ///
    /// # Errors
    ///
    /// As [`Clipper::prepare_training_skipping`].
    pub async fn prepare_training_skipping_async(
        &self,
        grads: &[Grad],
        clip: &Clip,
        optimizer: impl Into<Optimizer>,
        micro_batches: u32,
        skip: Skip,
    ) -> Result<Trainer, PrepareError> {
        self.prepared_training(grads, clip, optimizer.into(), (micro_batches, Some(skip)), None).await
    }

    /// As [`Clipper::prepare_training_after`], in the form of [`Clipper::prepare_async`].
    ///
    /// # Errors
    ///
    /// As [`Clipper::prepare_training_after`].
    pub async fn prepare_training_after_async(
        &self,
        previous: &Trainer,
        grads: &[Grad],
        clip: &Clip,
        optimizer: impl Into<Optimizer>,
        micro_batches: u32,
    ) -> Result<Trainer, PrepareError> {
        let micro_batches = (micro_batches, None);
        self.prepared_training(grads, clip, optimizer.into(), micro_batches, Some(&previous.stepper)).await
    }

    async fn prepared_training(
        &self,
        grads: &[Grad],
        clip: &Clip,
        optimizer: Optimizer,
        (micro_batches, skip): (u32, Option<Skip>),
        previous: Option<&Stepper>,
    ) -> Result<Trainer, PrepareError> {
        if !(1..=MOST_MICRO_BATCHES).contains(&micro_batches) {
            let (what, required) = ("a number of micro-batches", "from 1 to 65,536");
            return Err(ClipError::Combination { what, required }.into());
        }
        let gate = skip.map(|skip| clip.of_micro_batches(skip, micro_batches)).transpose()?;
        let (stepper, sums) = match micro_batches {
            1 => (self.prepared_step(grads, clip, optimizer, (Purpose::Step, previous)).await?, None),
            _ => {
                clip.validate()?;
                // The step's own check sees the sums.
                Clipper::check_given(grads)?;
                let clip = clip.unscale(clip.unscale / f64::from(micro_batches));
                let sums = Sums::new(self, grads, micro_batches).await?;
                let each = grads.iter().zip(&sums.places);
                let summed: Vec<Grad> = each.map(|(g, sum)| g.summed_in(&sum.buffer, sum.offset)).collect();
                let purpose = (Purpose::StepOfSums, previous);
                (self.prepared_step(&summed, &clip, optimizer, purpose).await?, Some(sums))
            }
        };
        let gate = match gate.as_ref().zip(sums.as_ref()) {
            Some((clip, sums)) => {
                let sums = (micro_batches, &sums.accumulator, &sums.corrections);
                Some(Gate::new(self, grads, clip, sums, &stepper).await?)
            }
            None => None,
        };
        Ok(Trainer {
            #[cfg(feature = "checkpoint")]
            clipper: self.clone(),
            grads: grads.to_vec(),
            gate,
            stepper,
            sums,
            micro_batches,
            summed: Mutex::default(),
        })
    }
}

impl Sums {
    async fn new(clipper: &Clipper, grads: &[Grad], micro_batches: u32) -> Result<Sums, PrepareError> {
        grads.iter().try_for_each(Grad::check_summed)?;
        let places = clipper.accumulators(grads).await?;
        let named: Vec<Grad> =
            grads.iter().zip(&places).map(|(g, at)| g.clone().accumulator(&at.buffer, at.offset)).collect();
        let all = f64::from(micro_batches);
        let corrections: Vec<f32> = (1..=micro_batches).map(|n| (all / f64::from(n)) as f32).collect();
        let corrections = caught(&clipper.device, "preparing the means of micro-batches", || {
            let (words, usage) = (bytemuck::cast_slice(&corrections), Usage::COPY_SRC | Usage::STORAGE);
            filled(&clipper.device, "gradclip mean corrections", words, usage)
        });
        let corrections = corrections.await??;
        Ok(Sums { accumulator: clipper.prepare_accumulation_async(&named).await?, places, corrections })
    }
}

impl Trainer {
    /// Records what follows a micro-batch's gradients: their sum, and the step where this is the last micro-batch of one. Whether it
    /// was; where micro-batches may be left out the device alone knows, and this is false: [`Trainer::progress`] and reports count updates.
    ///
    /// What is recorded counts, so it has to be submitted, and in this order. Where an encoder is dropped instead, [`Trainer::discard`] begins the
    /// sum anew with the next micro-batch.
    pub fn record(&self, encoder: &mut wgpu::CommandEncoder) -> bool {
        let mut summed = self.summed();
        if let Some((gate, sums)) = self.gate.as_ref().zip(self.sums.as_ref()) {
            if std::mem::take(&mut *summed) > 0 {
                encoder.clear_buffer(&gate.summed, 0, None);
            }
            let mut pass = begin(encoder, "gradclip micro-batch");
            gate.dispatch(&sums.accumulator, &self.stepper, &mut pass);
            return false;
        }
        if let Some(sums) = &self.sums {
            match *summed {
                0 => sums.accumulator.record_first(encoder),
                _ => sums.accumulator.record_next(encoder),
            }
            *summed += 1;
            if *summed < self.micro_batches {
                return false;
            }
            *summed = 0;
        }
        self.stepper.record_step(encoder);
        true
    }

    /// Records a step over the mean of the micro-batches since the last one, fewer than usual: at the end of an epoch, say. Whether
    /// there were any; where micro-batches may be left out the device looks, and this is false. Two words are copied on the device besides what a step takes.
    pub fn finish(&self, encoder: &mut wgpu::CommandEncoder) -> bool {
        let summed = std::mem::take(&mut *self.summed());
        if let Some((gate, sums)) = self.gate.as_ref().zip(self.sums.as_ref()) {
            if summed > 0 {
                encoder.clear_buffer(&gate.summed, 0, None);
            }
            let mut pass = begin(encoder, "gradclip step");
            gate.dispatch_end(&sums.accumulator, &self.stepper, &mut pass);
            return false;
        }
        let Some(sums) = self.sums.as_ref().filter(|_| summed > 0) else { return false };
        let progress = self.stepper.progress();
        let correct = |encoder: &mut wgpu::CommandEncoder, count: u32| {
            let from = u64::from(count - 1) * 4;
            encoder.copy_buffer_to_buffer(&sums.corrections, from, progress, CORRECTION, 4);
        };
        correct(encoder, summed);
        self.stepper.record_step(encoder);
        correct(encoder, self.micro_batches);
        true
    }

    /// Forgets the micro-batches since the last step: the next one begins a sum. For those that were recorded and never
    /// submitted, or are not wanted.
    pub fn discard(&self) {
        *self.summed() = u32::from(self.gate.is_some());
    }

    /// What decides which micro-batches are left out, where a rule does: its outcomes, reports and history are those of the last micro-batch.
    pub fn gate(&self) -> Option<&Pass> {
        self.gate.as_ref().map(|gate| &gate.pass)
    }

    /// Micro-batches of a step.
    pub fn micro_batches(&self) -> u32 {
        self.micro_batches
    }

    /// Micro-batches recorded since the last step. Where they may be left out the device counts them, and this is 0.
    pub fn accumulated(&self) -> u32 {
        if self.gate.is_some() { 0 } else { *self.summed() }
    }

    /// What belongs together, as it was described.
    pub fn grads(&self) -> &[Grad] {
        &self.grads
    }

    /// What it was prepared with.
    #[cfg(feature = "checkpoint")]
    pub(super) fn clipper(&self) -> &Clipper {
        &self.clipper
    }

    #[cfg(feature = "checkpoint")]
    pub(super) fn set_accumulated(&self, count: u32) {
        *self.summed() = count;
    }

    /// The `f32` sum of each gradient, in their order; none where every micro-batch is a step.
    pub fn accumulators(&self) -> &[Moment] {
        self.sums.as_ref().map_or(&[], |sums| &sums.places)
    }

    /// Norm, clip and step by themselves: over the sums, where there are some.
    pub fn stepper(&self) -> &Stepper {
        &self.stepper
    }

    /// As [`Stepper::set_lr`].
    ///
    /// # Errors
    ///
    /// As [`Stepper::set_lr`].
    pub fn set_lr(&self, queue: &wgpu::Queue, lr: f64) -> Result<(), OptimizerError> {
        self.stepper.set_lr(queue, lr)
    }

    /// Changes what gradients are multiplied by besides the mean, from the next submit of `queue` on.
    ///
    /// # Errors
    ///
    /// As [`Stepper::set_unscale`].
    pub fn set_unscale(&self, queue: &wgpu::Queue, unscale: f32) -> Result<(), ClipError> {
        let own = (f64::from(unscale) / f64::from(self.micro_batches)) as f32;
        self.stepper.set_unscale(queue, own)?;
        self.gate.as_ref().map_or(Ok(()), |gate| gate.pass.set_unscale(queue, unscale))
    }

    /// As [`Stepper::read_back`]: the report of the last step.
    ///
    /// # Errors
    ///
    /// As [`Stepper::read_back`].
    pub fn read_back(&self, encoder: &mut wgpu::CommandEncoder) -> Result<ReadBack, ReadBackError> {
        self.stepper.read_back(encoder)
    }

    /// As [`Stepper::progress`]: the loss scale is its first word.
    pub fn progress(&self) -> &wgpu::Buffer {
        self.stepper.progress()
    }

    /// As [`Stepper::inputs`].
    pub fn inputs(&self) -> &wgpu::Buffer {
        self.stepper.inputs()
    }

    fn summed(&self) -> MutexGuard<'_, u32> {
        // A number is whole, whoever panicked.
        self.summed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
