//! The way of results to the host: a bounded ring of mappable buffers that never stalls the GPU.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll};

use futures_intrusive::channel::shared::oneshot_channel;

use crate::clip::Clip;
use crate::error::{PrepareError, ReadBackError};
use crate::layout::{Outcome, Sum, Tally};
use crate::plan::Plan;
use crate::report::{self, Report};
use crate::segments::Segments;
use crate::tensor::TensorInfo;

use super::buffers::filled;
use super::scope::{caught, now};

const TAG_BYTES: u64 = 4;

/// The places of a pass.
#[derive(Debug)]
pub(crate) struct Ring {
    places: Vec<Arc<Place>>,
    /// The words 0, 1 and 2.
    tags: wgpu::Buffer,
    contents: Arc<Contents>,
}

/// What a place holds: outcomes, sums of tensors, the tally, and a tag.
#[derive(Debug)]
struct Contents {
    infos: Arc<[TensorInfo]>,
    clip: Clip,
    parts: Segments,
    /// Bytes of the outcomes that are not read back: those of units and rows may be millions.
    skipped_bytes: u64,
    outcome_bytes: u64,
    sum_bytes: u64,
}

const TALLY_BYTES: u64 = size_of::<Tally>() as u64;

#[derive(Debug)]
struct Place {
    device: wgpu::Device,
    buffer: wgpu::Buffer,
    busy: AtomicBool,
    /// The tag that the buffer was last seen with. Each read-back copies another one: a submit that
    /// fails maps the buffer all the same, and only the tag tells that its contents are old.
    tag: AtomicU32,
}

/// The use of a place, held by the map callback and by the future: it ends when both are gone,
/// whichever goes last, also where the callback is dropped without running, with an encoder that
/// was never submitted.
#[derive(Debug)]
struct Lease {
    place: Arc<Place>,
    map_ended: AtomicBool,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.map_ended.load(Ordering::Acquire) {
            if let Ok(view) = self.place.buffer.get_mapped_range(..) {
                self.place.tag.store(tag_of(&view), Ordering::Relaxed);
            }
            // An error where the device was destroyed meanwhile: the place is then never used again.
            let _ = caught(&self.place.device, "unmapping", || self.place.buffer.unmap());
        }
        self.place.busy.store(false, Ordering::Release);
    }
}

impl Ring {
    pub(crate) fn new(
        device: &wgpu::Device,
        places: usize,
        infos: Arc<[TensorInfo]>,
        clip: Clip,
        plan: &Plan,
    ) -> Result<Ring, PrepareError> {
        let parts = plan.parts.clone();
        let bytes = |records: u32| u64::from(records) * size_of::<Outcome>() as u64;
        let skipped_bytes = if parts.cut() { bytes(parts.count) } else { 0 };
        let outcome_bytes = bytes(parts.decided()) - skipped_bytes;
        let sum_bytes = (plan.tensor_sum_count() * size_of::<Sum>()) as u64;
        let place = |_| {
            let buffer = device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("gradclip read-back"),
                size: outcome_bytes + sum_bytes + TALLY_BYTES + TAG_BYTES,
                usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
                mapped_at_creation: false,
            });
            Arc::new(Place {
                device: device.clone(),
                buffer,
                busy: AtomicBool::new(false),
                tag: AtomicU32::new(0),
            })
        };
        let contents = Arc::new(Contents { infos, clip, parts, skipped_bytes, outcome_bytes, sum_bytes });
        let tags = bytemuck::bytes_of(&[0u32, 1, 2]);
        let tags = filled(device, "gradclip tags", tags, wgpu::BufferUsages::COPY_SRC)?;
        Ok(Ring { places: (0..places).map(place).collect(), tags, contents })
    }

    pub(crate) fn read_back(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        [outcomes, sums, tally]: [&wgpu::Buffer; 3],
    ) -> Result<ReadBack, ReadBackError> {
        let free = self.places.iter().find(|place| !place.busy.swap(true, Ordering::AcqRel));
        let place = free.ok_or(ReadBackError::RingFull { capacity: self.places.len() })?.clone();
        let Contents { skipped_bytes, outcome_bytes, sum_bytes, .. } = *self.contents;
        let mut end = 0;
        for (from, skipped, bytes) in
            [(outcomes, skipped_bytes, outcome_bytes), (sums, 0, sum_bytes), (tally, 0, TALLY_BYTES)]
        {
            if bytes > 0 {
                encoder.copy_buffer_to_buffer(from, skipped, &place.buffer, end, bytes);
            }
            end += bytes;
        }
        let tag = if place.tag.load(Ordering::Relaxed) == 1 { 2 } else { 1 };
        let from = u64::from(tag) * TAG_BYTES;
        encoder.copy_buffer_to_buffer(&self.tags, from, &place.buffer, end, TAG_BYTES);
        let (sender, receiver) = oneshot_channel();
        let lease = Arc::new(Lease { place, map_ended: AtomicBool::new(false) });
        let in_callback = lease.clone();
        encoder.map_buffer_on_submit(&lease.place.buffer, wgpu::MapMode::Read, .., move |result| {
            in_callback.map_ended.store(true, Ordering::Release);
            // Nobody listens any more where the future was dropped.
            let _ = sender.send(result);
        });
        let mapped = Box::pin(async move { receiver.receive().await });
        Ok(ReadBack { mapped, lease, tag, contents: self.contents.clone() })
    }
}

/// The last word of a place.
fn tag_of(bytes: &[u8]) -> u32 {
    bytes.last_chunk().map_or(0, |tag| u32::from_le_bytes(*tag))
}

type Mapped = Pin<Box<dyn Future<Output = Option<Result<(), wgpu::BufferAsyncError>>> + Send>>;

/// A result on its way to the host: a future of the [`Report`].
///
/// It becomes ready after its commands have run, when the device is next polled. Dropping it early
/// is fine; its place in the ring is used again once the GPU is done with it.
pub struct ReadBack {
    mapped: Mapped,
    lease: Arc<Lease>,
    tag: u32,
    contents: Arc<Contents>,
}

impl std::fmt::Debug for ReadBack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReadBack").field("lease", &self.lease).finish_non_exhaustive()
    }
}

impl ReadBack {
    /// The report, if it has arrived: never waits. Polls nothing by itself, see
    /// [`wgpu::Device::poll`].
    pub fn try_take(&mut self) -> Option<Result<Report, ReadBackError>> {
        now(self)
    }

    /// Blocks until everything submitted to `device` has run, and returns the report.
    ///
    /// # Errors
    ///
    /// [`ReadBackError::NotSubmitted`] where the commands were not submitted before this call,
    /// [`ReadBackError::Wait`] or [`ReadBackError::Map`] where the device was lost.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn wait(mut self, device: &wgpu::Device) -> Result<Report, ReadBackError> {
        device
            .poll(wgpu::PollType::wait_indefinitely())
            .map_err(|error| ReadBackError::Wait { message: error.to_string() })?;
        self.try_take().unwrap_or(Err(ReadBackError::NotSubmitted))
    }

    fn read(&self) -> Result<Report, ReadBackError> {
        let Contents { infos, clip, parts, outcome_bytes, sum_bytes, .. } = &*self.contents;
        let view = self
            .lease
            .place
            .buffer
            .get_mapped_range(..)
            .map_err(|error| ReadBackError::Map { message: error.to_string() })?;
        if tag_of(&view) != self.tag {
            return Err(ReadBackError::NotSubmitted);
        }
        let (outcomes, rest) = view.split_at(*outcome_bytes as usize);
        let (sums, rest) = rest.split_at(*sum_bytes as usize);
        // Records are copied out: a mapped range need not be aligned for them.
        let outcomes: Vec<Outcome> = bytemuck::pod_collect_to_vec(outcomes);
        let sums: Vec<Sum> = bytemuck::pod_collect_to_vec(sums);
        let tally: Tally = bytemuck::pod_read_unaligned(&rest[..TALLY_BYTES as usize]);
        if tally.steps == 0 {
            return Err(ReadBackError::Undecided);
        }
        Ok(report::report(clip, infos, parts, &sums, &outcomes, &tally))
    }
}

impl Future for ReadBack {
    type Output = Result<Report, ReadBackError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.mapped.as_mut().poll(context).map(|mapped| match mapped {
            None => Err(ReadBackError::NotSubmitted),
            Some(Err(error)) => Err(ReadBackError::Map { message: error.to_string() }),
            Some(Ok(())) => self.read(),
        })
    }
}
