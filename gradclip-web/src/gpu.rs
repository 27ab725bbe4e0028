//! A device of the visitor's, and whether it is still there.

use std::sync::{Arc, Mutex, PoisonError};

use gradclip::{Clipper, wgpu};

use crate::error::WebError;

/// An open device.
#[derive(Clone, Debug)]
pub struct Gpu {
    /// What it is.
    pub info: wgpu::AdapterInfo,
    /// The device.
    pub device: wgpu::Device,
    /// Its queue.
    pub queue: wgpu::Queue,
    trouble: Arc<Mutex<Trouble>>,
}

/// What the device told by itself.
#[derive(Debug, Default)]
struct Trouble {
    /// Why it was lost.
    lost: Option<String>,
    /// The first error that nobody caught.
    error: Option<String>,
}

impl Gpu {
    /// Opens the best adapter that there is.
    ///
    /// # Errors
    ///
    /// [`WebError::NoDevice`] without WebGPU, or where the browser gives neither adapter nor device.
    pub async fn open(backends: wgpu::Backends) -> Result<Gpu, WebError> {
        let adapter = adapter(backends).await?;
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("gradclip"),
            required_limits: Clipper::recommended_limits(&adapter),
            required_features: Clipper::optional_features(&adapter),
            ..Default::default()
        };
        let (device, queue) = adapter
            .request_device(&descriptor)
            .await
            .map_err(|error| WebError::NoDevice(format!("the adapter gave no device: {error}")))?;
        let trouble: Arc<Mutex<Trouble>> = Arc::default();
        let (on_lost, on_error) = (trouble.clone(), trouble.clone());
        device.set_device_lost_callback(move |reason, message| {
            let message = if message.is_empty() { format!("{reason:?}") } else { message };
            // It ends within a sentence.
            noted(&on_lost).lost.get_or_insert(message.trim_end_matches('.').to_owned());
        });
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            noted(&on_error).error.get_or_insert(error.to_string());
        }));
        Ok(Gpu { info: adapter.get_info(), device, queue, trouble })
    }

    /// What the page calls it.
    pub fn name(&self) -> String {
        if self.info.name.is_empty() { "WebGPU".into() } else { self.info.name.clone() }
    }

    /// That it is there, and nothing went wrong on it.
    ///
    /// # Errors
    ///
    /// [`WebError::Lost`] or [`WebError::Device`], with the device's own words.
    pub fn check(&self) -> Result<(), WebError> {
        if let Some(why) = self.lost() {
            return Err(WebError::Lost(why));
        }
        noted(&self.trouble).error.take().map_or(Ok(()), |error| Err(WebError::Device(error)))
    }

    /// Why it was lost, if it was.
    pub fn lost(&self) -> Option<String> {
        noted(&self.trouble).lost.clone()
    }

    /// An error of a step that fails for no other reason than that the device is gone.
    pub fn reason(&self, error: WebError) -> WebError {
        match self.check() {
            Err(lost @ WebError::Lost(_)) => lost,
            _ => error,
        }
    }

    /// A buffer of words that kernels and copies use.
    pub fn storage(&self, label: &str, words: u64) -> wgpu::Buffer {
        use wgpu::BufferUsages as Usage;
        self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: 4 * words,
            usage: Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST,
            mapped_at_creation: false,
        })
    }

    /// What buffers hold, one behind the other, after everything submitted so far.
    ///
    /// # Errors
    ///
    /// [`WebError::Lost`], or the device's error.
    pub async fn read(&self, buffers: &[&wgpu::Buffer]) -> Result<Vec<u8>, WebError> {
        let mut encoder = self.device.create_command_encoder(&Default::default());
        let staging = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("staging"),
            size: buffers.iter().map(|buffer| buffer.size()).sum(),
            usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
            mapped_at_creation: false,
        });
        let mut at = 0;
        for buffer in buffers {
            encoder.copy_buffer_to_buffer(buffer, 0, &staging, at, buffer.size());
            at += buffer.size();
        }
        self.queue.submit([encoder.finish()]);
        let (sender, receiver) = futures_channel::oneshot::channel();
        // Nobody listens any more where the future was dropped.
        staging.map_async(wgpu::MapMode::Read, .., move |result| drop(sender.send(result)));
        self.poll();
        let failed = |error: &dyn std::fmt::Display| self.reason(WebError::Device(error.to_string()));
        match receiver.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(failed(&error)),
            Err(error) => return Err(failed(&error)),
        }
        let bytes = staging.get_mapped_range(..).map_err(|error| failed(&error))?.to_vec();
        staging.destroy();
        self.check()?;
        Ok(bytes)
    }

    /// Lets callbacks run where no event loop does: browsers need none of it.
    pub fn poll(&self) {
        #[cfg(not(target_arch = "wasm32"))]
        let _ = self.device.poll(wgpu::PollType::wait_indefinitely());
    }
}

/// The best adapter that there is.
///
/// # Errors
///
/// [`WebError::NoDevice`] without WebGPU, or where the browser gives none.
pub async fn adapter(backends: wgpu::Backends) -> Result<wgpu::Adapter, WebError> {
    let descriptor =
        wgpu::InstanceDescriptor { backends, ..wgpu::InstanceDescriptor::new_without_display_handle() };
    let options = wgpu::RequestAdapterOptions {
        power_preference: wgpu::PowerPreference::HighPerformance,
        ..Default::default()
    };
    let adapter = wgpu::Instance::new(descriptor).request_adapter(&options).await;
    adapter.map_err(|error| WebError::NoDevice(format!("no WebGPU adapter: {error}")))
}

fn noted(trouble: &Mutex<Trouble>) -> std::sync::MutexGuard<'_, Trouble> {
    trouble.lock().unwrap_or_else(PoisonError::into_inner)
}
