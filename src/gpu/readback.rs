//! The way of results to the host: a bounded ring of mappable buffers that never stalls the GPU.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures_intrusive::channel::shared::oneshot_channel;

use crate::clip::Clip;
use crate::error::ReadBackError;
use crate::layout::{Outcome, Sum};
use crate::plan::Plan;
use crate::report::{self, Report, TensorInfo};

use super::scope::now;

/// The places of a pass.
#[derive(Debug)]
pub(crate) struct Ring {
    places: Vec<Arc<Place>>,
    contents: Arc<Contents>,
}

/// What a place holds: outcomes, then sums of tensors.
#[derive(Debug)]
struct Contents {
    infos: Arc<[TensorInfo]>,
    clip: Clip,
    outcome_bytes: u64,
    sum_bytes: u64,
}

#[derive(Debug)]
struct Place {
    buffer: wgpu::Buffer,
    busy: AtomicBool,
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
            self.place.buffer.unmap();
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
    ) -> Ring {
        let outcome_bytes = (plan.segment_count() * size_of::<Outcome>()) as u64;
        let sum_bytes = (plan.tensor_count() * size_of::<Sum>()) as u64;
        let place = |_| {
            let buffer = device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("gradclip read-back"),
                // A set without segments has nothing to read, but nothing empty can be mapped.
                size: (outcome_bytes + sum_bytes).max(16),
                usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
                mapped_at_creation: false,
            });
            Arc::new(Place { buffer, busy: AtomicBool::new(false) })
        };
        let contents = Arc::new(Contents { infos, clip, outcome_bytes, sum_bytes });
        Ring { places: (0..places.max(1)).map(place).collect(), contents }
    }

    pub(crate) fn read_back(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        outcomes: &wgpu::Buffer,
        sums: &wgpu::Buffer,
    ) -> Result<ReadBack, ReadBackError> {
        let free = self.places.iter().find(|place| !place.busy.swap(true, Ordering::AcqRel));
        let place = free.ok_or(ReadBackError::RingFull { capacity: self.places.len() })?.clone();
        let Contents { outcome_bytes, sum_bytes, .. } = *self.contents;
        if outcome_bytes > 0 {
            encoder.copy_buffer_to_buffer(outcomes, 0, &place.buffer, 0, outcome_bytes);
        }
        if sum_bytes > 0 {
            encoder.copy_buffer_to_buffer(sums, 0, &place.buffer, outcome_bytes, sum_bytes);
        }
        let (sender, receiver) = oneshot_channel();
        let lease = Arc::new(Lease { place, map_ended: AtomicBool::new(false) });
        let in_callback = lease.clone();
        encoder.map_buffer_on_submit(&lease.place.buffer, wgpu::MapMode::Read, .., move |result| {
            in_callback.map_ended.store(true, Ordering::Release);
            // Nobody listens any more where the future was dropped.
            let _ = sender.send(result);
        });
        let mapped = Box::pin(async move { receiver.receive().await });
        Ok(ReadBack { mapped, lease, contents: self.contents.clone() })
    }
}

type Mapped = Pin<Box<dyn Future<Output = Option<Result<(), wgpu::BufferAsyncError>>> + Send>>;

/// A result on its way to the host: a future of the [`Report`].
///
/// It becomes ready after its commands have run, when the device is next polled. Dropping it early
/// is fine; its place in the ring is used again once the GPU is done with it.
pub struct ReadBack {
    mapped: Mapped,
    lease: Arc<Lease>,
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
        let Contents { infos, clip, outcome_bytes, .. } = &*self.contents;
        let view = self
            .lease
            .place
            .buffer
            .get_mapped_range(..)
            .map_err(|error| ReadBackError::Map { message: error.to_string() })?;
        let (outcomes, rest) = view.split_at(*outcome_bytes as usize);
        let sums = &rest[..self.contents.sum_bytes as usize];
        // Records are copied out: a mapped range need not be aligned for them.
        let outcomes: Vec<Outcome> = bytemuck::pod_collect_to_vec(outcomes);
        let sums: Vec<Sum> = bytemuck::pod_collect_to_vec(sums);
        Ok(report::report(clip, infos, &sums, &outcomes))
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
