//! Runs on their way from the device to a file and back.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use wgpu::BufferUsages as Usage;

use crate::checkpoint::{Checkpoint, Form, Part, Role};
#[cfg(not(target_arch = "wasm32"))]
use crate::error::ReadBackError;
use crate::error::{CheckpointError, PrepareError};
use crate::history::History;
use crate::tensor::TensorInfo;

use super::halves::Half;
use super::mapped::{Copy, Place, ReadBack, Tags};
use super::memory;
#[cfg(not(target_arch = "wasm32"))]
use super::scope::waited;
use super::scope::{caught, now};
use super::trainer::Trainer;

/// A run on its way to the host: a future of the [`Checkpoint`]. It is ready after its commands have run, when the device is next
/// polled.
#[derive(Debug)]
pub struct Saving {
    /// Bytes of the history and of the parts one after the other, as much as a buffer holds each.
    waiting: VecDeque<ReadBack<Vec<u8>>>,
    /// Those that have arrived; none once the run was taken.
    arrived: Option<Vec<u8>>,
    form: Form,
    /// Where each part lies in those bytes.
    ranges: Vec<(usize, usize)>,
    /// In the form of the history.
    empty: History,
    accumulated: u32,
}

/// Bytes of a buffer: first and number.
struct Range<'b> {
    buffer: &'b wgpu::Buffer,
    offset: u64,
    bytes: u64,
}

impl<'b> Range<'b> {
    /// The words that it touches: first byte and number of bytes.
    fn words(&self) -> (u64, u64) {
        let begin = self.offset - self.offset % 4;
        (begin, if self.bytes == 0 { 0 } else { (self.offset + self.bytes).next_multiple_of(4) - begin })
    }

    /// The whole words of a part to be written; halves of words go to the others.
    fn split<'c>(&self, part: &Part, bytes: &'c [u8], halves: &mut Vec<Half<'b>>) -> Write<'b, 'c> {
        let first = if self.offset.is_multiple_of(4) { 0 } else { bytes.len().min(2) };
        let (head, rest) = bytes.split_at(first);
        let (words, tail) = rest.split_at(rest.len() - rest.len() % 4);
        let begin = self.offset + first as u64;
        for (half, offset) in [(head, self.offset), (tail, begin + words.len() as u64)] {
            if let Ok(half) = half.try_into() {
                let bits = u16::from_le_bytes(half);
                let (buffer, dtype, name) = (self.buffer, part.dtype, part.name.clone());
                halves.push(Half { buffer, offset, dtype, bits, name });
            }
        }
        (self.buffer, begin, words.into())
    }
}

/// To a buffer, from a byte on.
type Write<'b, 'c> = (&'b wgpu::Buffer, u64, Cow<'c, [u8]>);

impl Trainer {
    /// Records copies of all that the run goes on from, and returns its way to the host. Training goes on at once; what follows in
    /// the queue does not change what is saved. Allocates buffers for the copies: it is not meant for every step.
    ///
    /// ```no_run
    /// # fn run(device: &gradclip::wgpu::Device, queue: &gradclip::wgpu::Queue, trainer: &gradclip::Trainer)
    /// #     -> Result<(), Box<dyn std::error::Error>> {
    /// let mut encoder = device.create_command_encoder(&Default::default());
    /// let saving = trainer.save(&mut encoder)?;
    /// queue.submit([encoder.finish()]);
    /// // … further steps; or await it …
    /// std::fs::write("run.safetensors", saving.wait()?.to_bytes()?)?;
    ///
    /// // Another process:
    /// let checkpoint = gradclip::Checkpoint::from_bytes(&std::fs::read("run.safetensors")?)?;
    /// trainer.load(queue, &checkpoint)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`CheckpointError::History`] for a trainer that leaves out micro-batches, [`CheckpointError::Unexpected`] where two tensors would
    /// have one name, [`CheckpointError::Usage`] for a buffer without usage `COPY_SRC`, [`CheckpointError::Prepare`] where memory ran out. Nothing is recorded then.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn save(&self, encoder: &mut wgpu::CommandEncoder) -> Result<Saving, CheckpointError> {
        waited(self.save_async(encoder))
    }

    /// As [`Trainer::save`], in the form of [`Clipper::prepare_async`](crate::Clipper::prepare_async): copies are recorded once there are buffers
    /// for them. No step may be recorded meanwhile, so that what is copied is of one moment.
    ///
    /// # Errors
    ///
    /// As [`Trainer::save`].
    pub async fn save_async(&self, encoder: &mut wgpu::CommandEncoder) -> Result<Saving, CheckpointError> {
        self.gate().map_or(Ok(()), |_| Err(CheckpointError::gated()))?;
        let accumulated = self.accumulated();
        let form = self.form(accumulated > 0)?;
        let parts: Vec<Range<'_>> = form.parts.iter().map(|part| self.range(part)).collect();
        for (part, range) in form.parts.iter().zip(&parts) {
            usable(part, range, Usage::COPY_SRC)?;
        }
        let pass = self.stepper().pass();
        let empty = pass.empty_history();
        let mut copies = memory::copies(pass.memory(), &empty).to_vec();
        let mut end: u64 = copies.iter().map(|(_, _, bytes)| bytes).sum();
        let mut ranges = Vec::new();
        for range in &parts {
            let (begin, bytes) = range.words();
            copies.push((range.buffer, begin, bytes));
            ranges.push(((end + range.offset - begin) as usize, range.bytes as usize));
            end += bytes;
        }
        let waiting = staged(&self.clipper().device, encoder, copies).await?;
        let arrived = Some(Vec::with_capacity(end as usize));
        Ok(Saving { waiting, arrived, form, ranges, empty, accumulated })
    }

    /// Goes on from a saved run, from the next submit of `queue` on, wherever it was saved: with the same bits as not having
    /// stopped. Learning rate, thresholds and constants are those of this trainer. Submits commands of its own only where a parameter of 16
    /// bits begins or ends in the middle of a word.
    ///
    /// # Errors
    ///
    /// A run of other tensors, another optimiser or clip, values that no run leaves; a buffer without usage `COPY_DST`; memory that ran
    /// out. Nothing changes then.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn load(&self, queue: &wgpu::Queue, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        waited(self.load_async(queue, checkpoint))
    }

    /// As [`Trainer::load`], in the form of [`Clipper::prepare_async`](crate::Clipper::prepare_async).
    ///
    /// # Errors
    ///
    /// As [`Trainer::load`].
    pub async fn load_async(
        &self,
        queue: &wgpu::Queue,
        checkpoint: &Checkpoint,
    ) -> Result<(), CheckpointError> {
        self.gate().map_or(Ok(()), |_| Err(CheckpointError::gated()))?;
        let accumulated = checkpoint.pending(self.micro_batches())?;
        let form = self.form(accumulated > 0)?;
        let pass = self.stepper().pass();
        let (found, history) = form.checked(checkpoint, &pass.clip(), pass.plan().limit_count())?;
        let (mut writes, mut halves) = (Vec::new(), Vec::new());
        for (part, bytes) in found {
            let range = self.range(part);
            usable(part, &range, Usage::COPY_DST)?;
            match bytes {
                Some(bytes) => writes.push(range.split(part, bytes, &mut halves)),
                None => writes.push((range.buffer, range.offset, vec![0; range.bytes as usize].into())),
            }
        }
        let step = match halves.is_empty() {
            true => None,
            false => Some(self.clipper().prepare_halves(&halves).await?),
        };
        self.stepper().restore_history(queue, &history)?;
        for (buffer, offset, bytes) in writes.iter().filter(|(_, _, bytes)| !bytes.is_empty()) {
            queue.write_buffer(buffer, *offset, bytes);
        }
        if let Some(step) = step {
            let mut encoder = self.clipper().device.create_command_encoder(&Default::default());
            step.record_step(&mut encoder);
            queue.submit([encoder.finish()]);
        }
        self.set_accumulated(accumulated);
        Ok(())
    }

    fn form(&self, sums: bool) -> Result<Form, CheckpointError> {
        let infos: Vec<TensorInfo> = self.grads().iter().map(|grad| grad.parameter_info()).collect();
        let precisions: Vec<_> = self.grads().iter().map(|grad| grad.precision()).collect();
        Form::new(&infos, &precisions, &self.stepper().optimizer(), sums)
    }

    /// Where a part of the run lies.
    fn range(&self, part: &Part) -> Range<'_> {
        let (Role::Parameter(t) | Role::Master(t) | Role::Moment(t, _) | Role::Sum(t)) = part.role;
        let grad = &self.grads()[t];
        let moment = match part.role {
            Role::Parameter(_) => None,
            Role::Master(_) => self.stepper().masters()[t].as_ref(),
            Role::Moment(_, k) => Some(&self.stepper().moments()[t][k]),
            Role::Sum(_) => Some(&self.accumulators()[t]),
        };
        let bytes = grad.parameter_elements() * part.dtype.size();
        match (moment, &grad.parameter) {
            (None, Some(p)) => Range { buffer: &p.buffer, offset: p.offset, bytes },
            (None, None) => Range { buffer: grad.buffer(), offset: 0, bytes: 0 },
            (Some(m), _) => Range { buffer: &m.buffer, offset: m.offset, bytes },
        }
    }
}

fn usable(part: &Part, range: &Range<'_>, required: Usage) -> Result<(), CheckpointError> {
    let given = range.buffer.usage();
    if range.bytes == 0 || given.contains(required) {
        return Ok(());
    }
    Err(CheckpointError::Usage { name: part.name.clone(), required, given })
}

/// Records copies into as few buffers as hold them.
async fn staged(
    device: &wgpu::Device,
    encoder: &mut wgpu::CommandEncoder,
    mut copies: Vec<Copy<'_>>,
) -> Result<VecDeque<ReadBack<Vec<u8>>>, PrepareError> {
    // Room for the tag, and whole words.
    let largest = (device.limits().max_buffer_size - 4).min(1 << 30) & !3;
    let tags = caught(device, "saving a run", || Tags::new(device)).await??;
    let mut groups: Vec<Vec<Copy<'_>>> = Vec::new();
    let mut room = 0;
    copies.reverse();
    while let Some((buffer, at, bytes)) = copies.pop() {
        if room == 0 {
            groups.push(Vec::new());
            room = largest;
        }
        let now = bytes.min(room);
        room -= now;
        if let Some(group) = groups.last_mut() {
            group.push((buffer, at, now));
        }
        if now < bytes {
            copies.push((buffer, at + now, bytes - now));
        }
    }
    let place = |group: &Vec<Copy<'_>>| {
        let bytes = group.iter().map(|(_, _, bytes)| bytes).sum();
        Arc::new(Place::new(device, "gradclip saved run", bytes, Some(tags.clone())))
    };
    let places: Vec<Arc<Place>> =
        caught(device, "saving a run", || groups.iter().map(place).collect()).await?;
    let read = |(place, group): (Arc<Place>, Vec<Copy<'_>>)| {
        place.read_back(encoder, group, |bytes| Ok(bytes.to_vec()))
    };
    Ok(places.into_iter().zip(groups).map(read).collect())
}

impl Saving {
    /// The run, if it has arrived and was not taken yet: never waits. Polls nothing by itself, see [`wgpu::Device::poll`].
    pub fn try_take(&mut self) -> Option<Result<Checkpoint, CheckpointError>> {
        now(self)
    }

    /// Blocks until everything submitted to its device has run, and returns the run.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::ReadBack`] where the commands were not submitted before this call, or the device was lost.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn wait(mut self) -> Result<Checkpoint, CheckpointError> {
        let Some(mut arrived) = self.arrived.take() else {
            return Err(ReadBackError::NotSubmitted.into());
        };
        for part in self.waiting.drain(..) {
            arrived.extend(part.wait()?);
        }
        Ok(self.run(&arrived))
    }

    fn run(&self, arrived: &[u8]) -> Checkpoint {
        let bytes = self.ranges.iter().map(|&(at, len)| arrived[at..at + len].to_vec());
        self.form.checkpoint(bytes, memory::read(&self.empty, arrived), self.accumulated)
    }
}

impl Future for Saving {
    type Output = Result<Checkpoint, CheckpointError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Saving { waiting, arrived, .. } = &mut *self;
        while let (Some(next), Some(all)) = (waiting.front_mut(), arrived.as_mut()) {
            let Poll::Ready(bytes) = Pin::new(next).poll(context) else { return Poll::Pending };
            waiting.pop_front();
            match bytes {
                Ok(bytes) => all.extend(bytes),
                Err(error) => {
                    *arrived = None;
                    return Poll::Ready(Err(error.into()));
                }
            }
        }
        // Nothing comes after the run.
        let Some(arrived) = arrived.take() else { return Poll::Pending };
        Poll::Ready(Ok(self.run(&arrived)))
    }
}
