//! The way of bytes from the device to the host.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures_intrusive::channel::shared::oneshot_channel;

use crate::error::{DeviceError, PrepareError, ReadBackError};
use crate::report::Report;

use super::buffers::filled;
use super::scope::{caught, now};

const TAG_BYTES: u64 = size_of::<u32>() as u64;

/// The words 0, 1 and 2, of which one is copied last, so that copies that never ran are told from others.
#[derive(Clone, Debug)]
pub(crate) struct Tags(wgpu::Buffer);

impl Tags {
    pub(crate) fn new(device: &wgpu::Device) -> Result<Tags, PrepareError> {
        let words = bytemuck::bytes_of(&[0u32, 1, 2]);
        filled(device, "gradclip tags", words, wgpu::BufferUsages::COPY_SRC).map(Tags)
    }
}

/// A mappable buffer: as many bytes as are copied to it, and a tag where there are tags.
#[derive(Debug)]
pub(crate) struct Place {
    device: wgpu::Device,
    buffer: wgpu::Buffer,
    tags: Option<Tags>,
    busy: AtomicBool,
    /// The tag that the buffer was last seen with. Each use copies another one: a submit that
    /// fails maps the buffer all the same, and only the tag tells that its contents are old.
    tag: AtomicU32,
}

/// Bytes to be copied: from which buffer, from which place, how many.
pub(crate) type Copy<'b> = (&'b wgpu::Buffer, u64, u64);

impl Place {
    /// Without tags, copies that are submitted have to be known to run.
    pub(crate) fn new(device: &wgpu::Device, label: &'static str, bytes: u64, tags: Option<Tags>) -> Place {
        let buffer = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: bytes + if tags.is_some() { TAG_BYTES } else { 0 },
            usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
            mapped_at_creation: false,
        });
        Place { device: device.clone(), buffer, tags, busy: AtomicBool::new(false), tag: AtomicU32::new(0) }
    }

    /// Takes the place, unless it is in use.
    pub(crate) fn take(&self) -> bool {
        !self.busy.swap(true, Ordering::AcqRel)
    }

    /// Records the copies, which fill a place that was taken, and has it mapped after they have run.
    pub(crate) fn read_back<'b, T>(
        self: &Arc<Place>,
        encoder: &mut wgpu::CommandEncoder,
        copies: impl IntoIterator<Item = Copy<'b>>,
        read: impl Fn(&[u8]) -> Result<T, ReadBackError> + Send + Sync + 'static,
    ) -> ReadBack<T> {
        let mut end = 0;
        for (from, at, bytes) in copies.into_iter().filter(|(_, _, bytes)| *bytes > 0) {
            encoder.copy_buffer_to_buffer(from, at, &self.buffer, end, bytes);
            end += bytes;
        }
        let tag = if self.tag.load(Ordering::Relaxed) == 1 { 2 } else { 1 };
        if let Some(Tags(words)) = &self.tags {
            encoder.copy_buffer_to_buffer(words, u64::from(tag) * TAG_BYTES, &self.buffer, end, TAG_BYTES);
        }
        let (sender, receiver) = oneshot_channel();
        let lease = Arc::new(Lease { place: self.clone(), map_ended: AtomicBool::new(false) });
        let in_callback = lease.clone();
        encoder.map_buffer_on_submit(&self.buffer, wgpu::MapMode::Read, .., move |result| {
            in_callback.map_ended.store(true, Ordering::Release);
            // Nobody listens any more where the future was dropped.
            let _ = sender.send(result);
        });
        let mapped: Mapped = Box::pin(async move { receiver.receive().await });
        ReadBack { mapped: Mutex::new(Some(mapped)), lease, tag, read: Box::new(read) }
    }
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
            if let Ok(view) = self.place.buffer.get_mapped_range(..)
                && self.place.tags.is_some()
            {
                self.place.tag.store(split(&view).1, Ordering::Relaxed);
            }
            // An error where the device was destroyed meanwhile: the place is then never used again.
            drop(caught(&self.place.device, "unmapping", || self.place.buffer.unmap()));
        }
        self.place.busy.store(false, Ordering::Release);
    }
}

/// What was copied, and the tag.
fn split(bytes: &[u8]) -> (&[u8], u32) {
    bytes.split_last_chunk().map_or((bytes, 0), |(copied, tag)| (copied, u32::from_le_bytes(*tag)))
}

const MAPPING: &str = "mapping the result buffer";

fn device_error(what: &'static str, error: impl std::error::Error + Send + Sync + 'static) -> ReadBackError {
    ReadBackError::Device(DeviceError::new(what, error))
}

type Mapped = Pin<Box<dyn Future<Output = Option<Result<(), wgpu::BufferAsyncError>>> + Send>>;
type Read<T> = Box<dyn Fn(&[u8]) -> Result<T, ReadBackError> + Send + Sync>;

/// A result on its way to the host: a future of the [`Report`], or of a [`History`](crate::History).
///
/// It becomes ready after its commands have run, when the device is next polled; in a page, through the event loop. Dropping it early
/// is fine; its place in the ring is used again once the GPU is done with it.
pub struct ReadBack<T = Report> {
    /// None once the result was taken. Never locked: the mutex lets threads share what only an exclusive reference polls.
    mapped: Mutex<Option<Mapped>>,
    lease: Arc<Lease>,
    tag: u32,
    read: Read<T>,
}

impl<T> std::fmt::Debug for ReadBack<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReadBack").field("lease", &self.lease).finish_non_exhaustive()
    }
}

impl<T> ReadBack<T> {
    /// The result, if it has arrived and was not taken yet: never waits. Polls nothing by itself, see
    /// [`wgpu::Device::poll`].
    pub fn try_take(&mut self) -> Option<Result<T, ReadBackError>> {
        now(self)
    }

    /// Blocks until everything submitted to its device has run, and returns the result.
    ///
    /// # Errors
    ///
    /// [`ReadBackError::NotSubmitted`] where the commands were not submitted before this call,
    /// [`ReadBackError::Device`] where the device was lost.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn wait(mut self) -> Result<T, ReadBackError> {
        let polled = self.lease.place.device.poll(wgpu::PollType::wait_indefinitely());
        polled.map_err(|error| device_error("waiting for the device", error))?;
        match self.try_take() {
            Some(result) => result,
            // Another thread that polls has the callback in its hands, and calls it presently.
            None if self.is_mapped() => pollster::block_on(self),
            None => Err(ReadBackError::NotSubmitted),
        }
    }

    #[cfg(not(target_arch = "wasm32"))]
    fn is_mapped(&self) -> bool {
        self.lease.place.buffer.get_mapped_range(..).is_ok()
    }

    fn read(&self) -> Result<T, ReadBackError> {
        let view = self.lease.place.buffer.get_mapped_range(..);
        let view = view.map_err(|error| device_error(MAPPING, error))?;
        if self.lease.place.tags.is_none() {
            return (self.read)(&view);
        }
        match split(&view) {
            (copied, tag) if tag == self.tag => (self.read)(copied),
            _ => Err(ReadBackError::NotSubmitted),
        }
    }
}

impl<T> Future for ReadBack<T> {
    type Output = Result<T, ReadBackError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let own = self.mapped.get_mut().unwrap_or_else(PoisonError::into_inner);
        // Nothing comes after the result.
        let Some(mapped) = own else { return Poll::Pending };
        let Poll::Ready(mapped) = mapped.as_mut().poll(context) else { return Poll::Pending };
        *own = None;
        Poll::Ready(match mapped {
            None => Err(ReadBackError::NotSubmitted),
            Some(Err(error)) => Err(device_error(MAPPING, error)),
            Some(Ok(())) => self.read(),
        })
    }
}
