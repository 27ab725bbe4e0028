//! Runs on their way from the device to a file and back.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use wgpu::BufferUsages as Usage;

use crate::checkpoint::{Checkpoint, Form, Part, Role};
use crate::error::{CheckpointError, PrepareError};
#[cfg(not(target_arch = "wasm32"))]
use crate::error::{DeviceError, ReadBackError};
use crate::history::History;
use crate::tensor::TensorInfo;

use super::mapped::{Copy, Place, ReadBack, Tags};
use super::scope::{caught, now};
use super::trainer::Trainer;

/// A run on its way to the host: a future of the [`Checkpoint`]. It is ready after its commands have run, when the device is next
/// polled.
#[derive(Debug)]
pub struct Saving {
    /// To be waited for, which browsers do not allow.
    #[cfg(not(target_arch = "wasm32"))]
    device: wgpu::Device,
    history: ReadBack<History>,
    /// Bytes of the parts one after the other, as much as a buffer holds each.
    waiting: Vec<ReadBack<Vec<u8>>>,
    arrived: Vec<u8>,
    form: Form,
    /// Where each part lies in those bytes.
    ranges: Vec<(usize, usize)>,
    accumulated: u32,
    /// Whether it was taken.
    taken: bool,
}

/// Bytes of a buffer: first and number.
struct Range<'b> {
    buffer: &'b wgpu::Buffer,
    offset: u64,
    bytes: u64,
}

impl Range<'_> {
    /// The words that it touches: first byte and number of bytes.
    fn words(&self) -> (u64, u64) {
        let begin = self.offset - self.offset % 4;
        (begin, if self.bytes == 0 { 0 } else { (self.offset + self.bytes).next_multiple_of(4) - begin })
    }
}

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
    /// [`CheckpointError::Unexpected`] where two tensors would have one name, [`CheckpointError::Usage`] for a buffer without usage
    /// `COPY_SRC`, [`CheckpointError::Shared`] for a parameter of 16 bits that [`Trainer::load`] could not write,
    /// [`CheckpointError::Prepare`] where memory ran out. The run is as it was then.
    pub fn save(&self, encoder: &mut wgpu::CommandEncoder) -> Result<Saving, CheckpointError> {
        let accumulated = self.accumulated();
        let form = self.form(accumulated > 0)?;
        let parts: Vec<Range<'_>> = form.parts.iter().map(|part| self.range(part)).collect();
        for (part, range) in form.parts.iter().zip(&parts) {
            usable(part, range, Usage::COPY_SRC)?;
        }
        let (mut ranges, mut end) = (Vec::new(), 0);
        for range in &parts {
            let (begin, bytes) = range.words();
            ranges.push(((end + range.offset - begin) as usize, range.bytes as usize));
            end += bytes;
        }
        // What could not be gone on from is told now.
        let mut edges = Edges::default();
        for (part, range) in form.parts.iter().zip(&parts) {
            edges.split(part, range, &vec![0; range.bytes as usize], &mut Vec::new());
        }
        edges.whole()?;
        let device = self.stepper().pass().device().clone();
        let history = self.stepper().save_history(encoder)?;
        let copies = parts.iter().map(|range| (range.buffer, range.words().0, range.words().1)).collect();
        let waiting = staged(&device, encoder, copies)?;
        Ok(Saving {
            #[cfg(not(target_arch = "wasm32"))]
            device,
            history,
            waiting,
            arrived: Vec::with_capacity(end as usize),
            form,
            ranges,
            accumulated,
            taken: false,
        })
    }

    /// Goes on from a saved run, from the next submit of `queue` on, wherever it was saved: with the same bits as not having
    /// stopped. Learning rate, thresholds and constants are those of this trainer.
    ///
    /// # Errors
    ///
    /// A run of other tensors, another optimiser or clip, values that no run leaves; a buffer without usage `COPY_DST`; a parameter
    /// of 16 bits that shares a word with what is not of this run. Nothing changes then.
    pub fn load(&self, queue: &wgpu::Queue, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        let accumulated = checkpoint.accumulated;
        if accumulated >= self.micro_batches() {
            let (what, required) =
                ("micro-batches", format!("fewer than {} since the last step", self.micro_batches()));
            return Err(CheckpointError::Header { what, required, given: accumulated.to_string() });
        }
        let form = self.form(accumulated > 0)?;
        let pass = self.stepper().pass();
        let (found, history) = form.checked(checkpoint, &pass.clip(), pass.plan().limit_count())?;
        let mut writes = Vec::new();
        let mut edges = Edges::default();
        for (part, bytes) in found {
            let range = self.range(part);
            usable(part, &range, Usage::COPY_DST)?;
            match bytes {
                Some(bytes) => edges.split(part, &range, bytes, &mut writes),
                None => writes.push((range.buffer.clone(), range.offset, vec![0; range.bytes as usize])),
            }
        }
        writes.extend(edges.whole()?);
        self.stepper().restore_history(queue, &history)?;
        for (buffer, offset, bytes) in writes.iter().filter(|(_, _, bytes)| !bytes.is_empty()) {
            queue.write_buffer(buffer, *offset, bytes);
        }
        self.set_accumulated(accumulated);
        Ok(())
    }

    fn form(&self, sums: bool) -> Result<Form, CheckpointError> {
        let infos: Vec<TensorInfo> = self.grads().iter().map(|grad| grad.info()).collect();
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
        let bytes = grad.elements() * part.dtype.size();
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
fn staged(
    device: &wgpu::Device,
    encoder: &mut wgpu::CommandEncoder,
    mut copies: Vec<Copy<'_>>,
) -> Result<Vec<ReadBack<Vec<u8>>>, PrepareError> {
    // Room for the tag, and whole words.
    let largest = (device.limits().max_buffer_size - 4).min(1 << 30) & !3;
    let tags = caught(device, "saving a run", || Tags::new(device))??;
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
    let places: Vec<Arc<Place>> = groups
        .iter()
        .map(|group| {
            let bytes = group.iter().map(|(_, _, bytes)| bytes).sum();
            let new = || Place::new(device, "gradclip saved run", bytes, Some(tags.clone()));
            Ok(Arc::new(caught(device, "saving a run", new)?))
        })
        .collect::<Result<_, PrepareError>>()?;
    let read = |(place, group): (Arc<Place>, Vec<Copy<'_>>)| {
        place.read_back(encoder, group, |bytes| Ok(bytes.to_vec()))
    };
    Ok(places.into_iter().zip(groups).map(read).collect())
}

/// Words at the ends of parameters of 16 bits, of which some hold the end of one and the beginning of another.
#[derive(Default)]
struct Edges(HashMap<(wgpu::Buffer, u64), Edge>);

struct Edge {
    halves: [Option<[u8; 2]>; 2],
    name: String,
}

/// To a buffer, from a byte on.
type Write = (wgpu::Buffer, u64, Vec<u8>);

impl Edges {
    /// Whole words of a part to be written, and halves of words to be looked at with those of others.
    fn split(&mut self, part: &Part, range: &Range<'_>, bytes: &[u8], writes: &mut Vec<Write>) {
        let Range { buffer, offset, .. } = range;
        let first = usize::from(offset % 4 != 0 && !bytes.is_empty()) * 2;
        let last = (bytes.len() - first) % 4;
        let (head, rest) = bytes.split_at(first);
        let (middle, tail) = rest.split_at(rest.len() - last);
        let middle_at = offset + first as u64;
        for (half, at, half_of) in [(head, *offset, 1), (tail, middle_at + middle.len() as u64, 0)] {
            let Ok(half) = half.try_into() else { continue };
            let edge = self
                .0
                .entry(((*buffer).clone(), at / 4))
                .or_insert_with(|| Edge { halves: [None; 2], name: part.name.clone() });
            edge.halves[half_of] = Some(half);
        }
        writes.push(((*buffer).clone(), middle_at, middle.to_vec()));
    }

    /// The words, of which both halves are known; what follows the last one of a buffer is nobody's.
    fn whole(self) -> Result<Vec<Write>, CheckpointError> {
        let word = |((buffer, word), Edge { halves, name }): ((wgpu::Buffer, u64), Edge)| {
            let is_last = (word + 1) * 4 == buffer.size();
            match halves {
                [Some(low), Some(high)] => Ok((buffer, word * 4, [low, high].concat())),
                [Some(low), None] if is_last => Ok((buffer, word * 4, [low, [0; 2]].concat())),
                _ => Err(CheckpointError::Shared { name }),
            }
        };
        self.0.into_iter().map(word).collect()
    }
}

impl Saving {
    /// The run, if it has arrived and was not taken yet: never waits. Polls nothing by itself, see [`wgpu::Device::poll`].
    pub fn try_take(&mut self) -> Option<Result<Checkpoint, CheckpointError>> {
        if self.taken {
            return None;
        }
        let taken = now(&mut *self);
        self.taken = taken.is_some();
        taken
    }

    /// Blocks until everything submitted to its device has run, and returns the run.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::ReadBack`] where the commands were not submitted before this call, or the device was lost.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn wait(mut self) -> Result<Checkpoint, CheckpointError> {
        let polled = self.device.poll(wgpu::PollType::wait_indefinitely());
        let lost = |error| ReadBackError::Device(DeviceError::new("waiting for the device", error));
        polled.map_err(lost)?;
        self.try_take().unwrap_or(Err(ReadBackError::NotSubmitted.into()))
    }
}

impl Future for Saving {
    type Output = Result<Checkpoint, CheckpointError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        while let Some(next) = self.waiting.first_mut() {
            let Poll::Ready(bytes) = Pin::new(next).poll(context) else { return Poll::Pending };
            self.arrived.extend(bytes?);
            self.waiting.remove(0);
        }
        let Poll::Ready(history) = Pin::new(&mut self.history).poll(context) else { return Poll::Pending };
        let bytes = self.ranges.iter().map(|&(at, len)| self.arrived[at..at + len].to_vec());
        Poll::Ready(Ok(self.form.checkpoint(bytes, history?, self.accumulated)))
    }
}
