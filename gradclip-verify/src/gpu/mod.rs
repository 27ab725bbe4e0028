//! A device of our own, for whoever looks at buffers and clocks that a session keeps to itself.

mod clock;
mod entries;
mod placed;

use std::ops::Range;
use std::sync::{Arc, Mutex};
#[cfg(not(target_arch = "wasm32"))]
use std::time::{Duration, Instant};

use bytemuck::Pod;
use futures_intrusive::channel::shared::oneshot_channel;
use gradclip::wgpu::BufferUsages as Usage;
use gradclip::{Clip, Clipper, ClipperOptions, Grad, PrepareError, wgpu};
#[cfg(not(target_arch = "wasm32"))]
use gradclip::{adapter_name, adapters};

use crate::failure::Failure;

pub use clock::Clock;
pub use entries::{PlacedEntries, expected};
pub use placed::{Operands, Placed, Placing};

/// Records a micro-batch, the first one or another.
pub type MicroBatch = Box<dyn Fn(bool, &mut wgpu::CommandEncoder)>;

/// A device of one adapter, its queue and kernels.
#[derive(Debug)]
pub struct Gpu {
    /// What the adapter says of itself.
    pub info: wgpu::AdapterInfo,
    /// The adapter.
    pub adapter: wgpu::Adapter,
    /// The device.
    pub device: wgpu::Device,
    /// Its queue.
    pub queue: wgpu::Queue,
    /// The library's kernels on it.
    pub clipper: Clipper,
    /// The first error that nobody else caught, where these are kept.
    error: Arc<Mutex<Option<String>>>,
}

/// The best adapter whose `backend/name` contains `GRADCLIP_TEST_ADAPTER`.
///
/// # Errors
///
/// [`Failure::Device`] where there is none.
#[cfg(not(target_arch = "wasm32"))]
pub fn adapter() -> Result<wgpu::Adapter, Failure> {
    let wanted = std::env::var("GRADCLIP_TEST_ADAPTER").unwrap_or_default().to_lowercase();
    let named = |a: &wgpu::Adapter| adapter_name(&a.get_info()).to_lowercase().contains(&wanted);
    let none = || Failure::Device(format!("no adapter with `{wanted}` in its name"));
    adapters().into_iter().find(named).ok_or_else(none)
}

/// `backend/name`, as sessions have it elsewhere. Not every browser tells a name.
#[cfg(target_arch = "wasm32")]
fn adapter_name(info: &wgpu::AdapterInfo) -> String {
    let name = if info.name.is_empty() { "unnamed" } else { &info.name };
    format!("{}/{name}", info.backend)
}

impl Gpu {
    /// Opens a device with all that the library can use, and keeps errors for [`Gpu::check`].
    ///
    /// # Errors
    ///
    /// [`Failure::Device`] where the adapter gives none.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn open(adapter: &wgpu::Adapter) -> Result<Gpu, Failure> {
        pollster::block_on(Gpu::open_async(adapter))
    }

    /// As `Gpu::open`, for a page.
    ///
    /// # Errors
    ///
    /// As `Gpu::open`.
    pub async fn open_async(adapter: &wgpu::Adapter) -> Result<Gpu, Failure> {
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("gradclip"),
            required_limits: Clipper::recommended_limits(adapter),
            required_features: Clipper::optional_features(adapter),
            ..Default::default()
        };
        let gpu = Gpu::with_async(adapter, &descriptor, ClipperOptions::default()).await?;
        let first = gpu.error.clone();
        gpu.device.on_uncaptured_error(Arc::new(move |raised: wgpu::Error| {
            if let Ok(mut first) = first.lock() {
                first.get_or_insert(raised.to_string());
            }
        }));
        Ok(gpu)
    }

    /// Opens what is described. Errors that nobody catches are wgpu's to treat, which panics.
    ///
    /// # Errors
    ///
    /// [`Failure::Device`] where the adapter does not give it.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn with(
        adapter: &wgpu::Adapter,
        descriptor: &wgpu::DeviceDescriptor<'_>,
        options: ClipperOptions,
    ) -> Result<Gpu, Failure> {
        pollster::block_on(Gpu::with_async(adapter, descriptor, options))
    }

    /// As `Gpu::with`, for a page.
    ///
    /// # Errors
    ///
    /// As `Gpu::with`.
    pub async fn with_async(
        adapter: &wgpu::Adapter,
        descriptor: &wgpu::DeviceDescriptor<'_>,
        options: ClipperOptions,
    ) -> Result<Gpu, Failure> {
        let info = adapter.get_info();
        let failed = |problem: String| Failure::Device(format!("{}: {problem}", adapter_name(&info)));
        let opened = adapter.request_device(descriptor).await;
        let (device, queue) = opened.map_err(|error| failed(error.to_string()))?;
        let clipper = Clipper::with_options(&device, options).map_err(|error| failed(error.to_string()))?;
        Ok(Gpu { info, adapter: adapter.clone(), device, queue, clipper, error: Arc::default() })
    }

    /// The adapter's `backend/name`.
    pub fn name(&self) -> String {
        adapter_name(&self.info)
    }

    fn failed(&self, problem: impl std::fmt::Display) -> Failure {
        Failure::Device(format!("{}: {problem}", self.name()))
    }

    /// The errors raised since the last call, as a failure.
    pub fn check(&self) -> Result<(), Failure> {
        let first = self.error.lock().map_err(|_| self.failed("an error handler failed"))?.take();
        first.map_or(Ok(()), |error| Err(self.failed(error)))
    }

    /// Waits for everything submitted.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn wait(&self) -> Result<(), Failure> {
        self.device.poll(wgpu::PollType::wait_indefinitely()).map_err(|error| self.failed(error))?;
        self.check()
    }

    /// An encoder with nothing recorded.
    pub fn encoder(&self) -> wgpu::CommandEncoder {
        self.device.create_command_encoder(&Default::default())
    }

    /// Prepares sums of micro-batches, of gradients as they are or clipped one by one.
    ///
    /// # Errors
    ///
    /// What the library refuses.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn accumulation(&self, grads: &[Grad], clip: Option<&Clip>) -> Result<MicroBatch, PrepareError> {
        pollster::block_on(self.accumulation_async(grads, clip))
    }

    /// As `Gpu::accumulation`, for a page.
    ///
    /// # Errors
    ///
    /// What the library refuses.
    pub async fn accumulation_async(
        &self,
        grads: &[Grad],
        clip: Option<&Clip>,
    ) -> Result<MicroBatch, PrepareError> {
        macro_rules! record {
            ($sums:expr) => {{
                let sums = $sums?;
                Box::new(move |first, e| if first { sums.record_first(e) } else { sums.record_next(e) })
            }};
        }
        Ok(match clip {
            None => record!(self.clipper.prepare_accumulation_async(grads).await),
            Some(clip) => record!(self.clipper.prepare_clipped_accumulation_async(grads, clip).await),
        })
    }

    /// Records and submits.
    pub fn submit<T>(&self, record: impl FnOnce(&mut wgpu::CommandEncoder) -> T) -> T {
        let mut encoder = self.encoder();
        let recorded = record(&mut encoder);
        self.queue.submit([encoder.finish()]);
        recorded
    }

    /// Records, submits and waits: the time of all that.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn run(&self, record: impl FnOnce(&mut wgpu::CommandEncoder)) -> Result<Duration, Failure> {
        let start = Instant::now();
        self.submit(record);
        self.wait()?;
        Ok(start.elapsed())
    }

    /// A buffer of zeros, of `size` bytes rounded up to whole words.
    pub fn buffer(&self, size: u64, usage: Usage) -> wgpu::Buffer {
        self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("gradclip"),
            size: size.next_multiple_of(4).max(4),
            usage,
            mapped_at_creation: false,
        })
    }

    /// A buffer for kernels and copies.
    pub fn storage(&self, size: u64) -> wgpu::Buffer {
        self.buffer(size, Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST)
    }

    /// Such a buffer with these bytes, and zeros up to a whole word.
    pub fn upload(&self, bytes: &[u8]) -> wgpu::Buffer {
        let buffer = self.storage(bytes.len() as u64);
        let (words, rest) = bytes.split_at(bytes.len() & !3);
        self.queue.write_buffer(&buffer, 0, words);
        if !rest.is_empty() {
            let mut last = [0; 4];
            last[..rest.len()].copy_from_slice(rest);
            self.queue.write_buffer(&buffer, words.len() as u64, &last);
        }
        buffer
    }

    /// Records copies of whole buffers, to be read after a submit.
    pub fn stage<'b>(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        buffers: impl IntoIterator<Item = &'b wgpu::Buffer>,
    ) -> Staged {
        self.stage_parts(encoder, buffers.into_iter().map(|buffer| (buffer, 0..buffer.size())))
    }

    /// Records copies of parts of buffers, in whole words.
    pub fn stage_parts<'b>(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        parts: impl IntoIterator<Item = (&'b wgpu::Buffer, Range<u64>)>,
    ) -> Staged {
        let parts: Vec<_> = parts.into_iter().collect();
        let sizes: Vec<u64> = parts.iter().map(|(_, range)| range.end - range.start).collect();
        let staging = self.buffer(sizes.iter().sum(), Usage::COPY_DST | Usage::MAP_READ);
        let mut at = 0;
        for ((buffer, range), size) in parts.iter().zip(&sizes) {
            encoder.copy_buffer_to_buffer(buffer, range.start, &staging, at, *size);
            at += size;
        }
        Staged { staging, sizes }
    }

    /// The bytes of staged buffers, whose copies have been submitted. Waits.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn collect(&self, staged: &Staged) -> Result<Vec<Vec<u8>>, Failure> {
        pollster::block_on(self.collect_async(staged))
    }

    /// As `Gpu::collect`, for a page, where nothing waits: the event loop maps.
    pub async fn collect_async(&self, staged: &Staged) -> Result<Vec<Vec<u8>>, Failure> {
        let (sender, receiver) = oneshot_channel();
        staged.staging.map_async(wgpu::MapMode::Read, .., move |mapped| drop(sender.send(mapped)));
        #[cfg(not(target_arch = "wasm32"))]
        self.wait()?;
        let mapped = receiver.receive().await;
        self.check()?;
        if let Some(Err(error)) = mapped {
            return Err(self.failed(error));
        }
        let view = staged.staging.get_mapped_range(..).map_err(|error| self.failed(error))?;
        let mut rest = &view[..];
        let mut next = |&size: &u64| {
            let (first, others) = rest.split_at(size as usize);
            rest = others;
            first.to_vec()
        };
        Ok(staged.sizes.iter().map(&mut next).collect())
    }

    /// What lies in a range of a buffer. Waits.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read<T: Pod>(&self, buffer: &wgpu::Buffer, range: Range<u64>) -> Result<Vec<T>, Failure> {
        pollster::block_on(self.read_async(buffer, range))
    }

    /// As `Gpu::read`, for a page.
    pub async fn read_async<T: Pod>(
        &self,
        buffer: &wgpu::Buffer,
        range: Range<u64>,
    ) -> Result<Vec<T>, Failure> {
        let staged = self.submit(|encoder| self.stage_parts(encoder, [(buffer, range)]));
        Ok(bytemuck::pod_collect_to_vec(&self.collect_async(&staged).await?[0]))
    }
}

/// Copies of buffers on their way to the host.
#[derive(Debug)]
pub struct Staged {
    staging: wgpu::Buffer,
    sizes: Vec<u64>,
}
