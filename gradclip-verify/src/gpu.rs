//! A device of our own, for commands that look at buffers and clocks that a session keeps to itself.

use std::sync::{Arc, Mutex};

use gradclip::adapter_name;
use gradclip::{Clipper, wgpu};

use crate::failure::Failure;

/// A device of one adapter, its queue and kernels.
#[derive(Debug)]
pub struct Gpu {
    /// What the adapter says of itself.
    pub info: wgpu::AdapterInfo,
    /// The device, opened with all that the library can use.
    pub device: wgpu::Device,
    /// Its queue.
    pub queue: wgpu::Queue,
    /// The library's kernels on it.
    pub clipper: Clipper,
    /// The first error that nobody else caught; wgpu would panic instead.
    error: Arc<Mutex<Option<String>>>,
}

impl Gpu {
    /// Opens a device.
    ///
    /// # Errors
    ///
    /// [`Failure::Device`] where the adapter gives none.
    pub fn open(adapter: &wgpu::Adapter) -> Result<Gpu, Failure> {
        let info = adapter.get_info();
        let failed = |problem: String| Failure::Device(format!("{}: {problem}", adapter_name(&info)));
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("gradclip command line"),
            required_limits: Clipper::recommended_limits(adapter),
            required_features: Clipper::optional_features(adapter),
            ..Default::default()
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))
            .map_err(|error| failed(error.to_string()))?;
        let error = Arc::new(Mutex::new(None));
        let first = error.clone();
        device.on_uncaptured_error(Arc::new(move |raised: wgpu::Error| {
            if let Ok(mut first) = first.lock() {
                first.get_or_insert(raised.to_string());
            }
        }));
        let clipper = Clipper::new(&device).map_err(|error| failed(error.to_string()))?;
        Ok(Gpu { info, device, queue, clipper, error })
    }

    /// The adapter's `backend/name`.
    pub fn name(&self) -> String {
        adapter_name(&self.info)
    }

    /// The errors raised since the last call, as a failure.
    pub fn check(&self) -> Result<(), Failure> {
        match self.error.lock().map(|mut first| first.take()) {
            Ok(None) => Ok(()),
            Ok(Some(error)) => Err(Failure::Device(format!("{}: {error}", self.name()))),
            Err(_) => Err(Failure::Device(format!("{}: an error handler failed", self.name()))),
        }
    }

    /// Waits for everything submitted.
    pub fn wait(&self) -> Result<(), Failure> {
        let waited = self.device.poll(wgpu::PollType::wait_indefinitely());
        waited.map_err(|error| Failure::Device(format!("{}: {error}", self.name())))?;
        self.check()
    }

    /// An encoder with nothing recorded.
    pub fn encoder(&self) -> wgpu::CommandEncoder {
        self.device.create_command_encoder(&Default::default())
    }

    /// A buffer of zeros, of `size` bytes rounded up to whole words.
    pub fn buffer(&self, size: u64, usage: wgpu::BufferUsages) -> wgpu::Buffer {
        self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("gradclip command line"),
            size: size.next_multiple_of(4).max(4),
            usage,
            mapped_at_creation: false,
        })
    }

    /// Records copies of whole buffers, to be read after a wait.
    pub fn stage<'b>(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        buffers: impl IntoIterator<Item = &'b wgpu::Buffer>,
    ) -> Staged {
        let buffers: Vec<&wgpu::Buffer> = buffers.into_iter().collect();
        let total = buffers.iter().map(|b| b.size()).sum();
        let staging = self.buffer(total, wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ);
        let mut sizes = Vec::with_capacity(buffers.len());
        let mut at = 0;
        for buffer in buffers {
            encoder.copy_buffer_to_buffer(buffer, 0, &staging, at, buffer.size());
            sizes.push(buffer.size() as usize);
            at += buffer.size();
        }
        Staged { staging, sizes }
    }

    /// The bytes of staged buffers, whose copies have been submitted. Waits.
    pub fn read(&self, staged: &Staged) -> Result<Vec<Vec<u8>>, Failure> {
        staged.staging.map_async(wgpu::MapMode::Read, .., |_| {});
        self.wait()?;
        let view = staged.staging.get_mapped_range(..);
        let view = view.map_err(|error| Failure::Device(format!("{}: {error}", self.name())))?;
        let mut at = 0;
        Ok(staged
            .sizes
            .iter()
            .map(|&size| {
                at += size;
                view[at - size..at].to_vec()
            })
            .collect())
    }
}

/// Copies of buffers on their way to the host.
#[derive(Debug)]
pub struct Staged {
    staging: wgpu::Buffer,
    sizes: Vec<usize>,
}
