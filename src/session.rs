//! Clipping for those with no wgpu of their own: one call from slices to slices.
//!
//! Everything here blocks, and copies gradients to the device and back; a training loop on the GPU
//! wants [`Clipper`] instead.

use crate::clip::Clip;
use crate::cpu::{self, GradMut};
use crate::error::{PrepareError, ReadBackError, SessionError};
use crate::gpu::{Clipper, caught, filled};
use crate::grad::Grad;
use crate::report::{Report, TensorReport};
use crate::segments::TensorInfo;

/// Bytes of gradients that are on their way to the host at once.
const DOWNLOAD: u64 = 256 << 20;

/// Where to clip.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Target {
    /// The best GPU, else a software adapter, else the CPU path.
    Auto,
    /// The CPU path.
    Cpu,
    /// The best adapter, an error if there is none.
    Gpu,
    /// The best adapter whose `backend/name` contains this, ignoring case.
    Named(String),
}

/// A device, opened, or the CPU path.
#[derive(Debug)]
pub struct Session {
    gpu: Option<Gpu>,
}

#[derive(Debug)]
struct Gpu {
    info: wgpu::AdapterInfo,
    device: wgpu::Device,
    queue: wgpu::Queue,
    clipper: Clipper,
}

/// All adapters, best first: discrete, integrated, virtual, other, software; of equal ones those
/// with a modern backend first. `WGPU_BACKEND` restricts the backends.
pub fn adapters() -> Vec<wgpu::Adapter> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let mut adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    adapters.retain(|a| {
        a.get_downlevel_capabilities().flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS)
            && a.limits().max_storage_buffers_per_shader_stage >= 4
    });
    adapters.sort_by_key(|adapter| {
        let info = adapter.get_info();
        let kind = match info.device_type {
            wgpu::DeviceType::DiscreteGpu => 0,
            wgpu::DeviceType::IntegratedGpu => 1,
            wgpu::DeviceType::VirtualGpu => 2,
            wgpu::DeviceType::Other => 3,
            wgpu::DeviceType::Cpu => 4,
        };
        (kind, info.backend == wgpu::Backend::Gl)
    });
    adapters
}

/// `backend/name` of an adapter, as [`Target::Named`] matches it.
pub fn adapter_name(info: &wgpu::AdapterInfo) -> String {
    format!("{}/{}", info.backend, info.name)
}

impl Session {
    /// Opens what `target` names. Blocks until the device is there.
    ///
    /// # Errors
    ///
    /// [`SessionError::NoAdapter`] where nothing matches, [`SessionError::NoDevice`] where the
    /// adapter refuses. [`Target::Auto`] has neither.
    pub fn open(target: &Target) -> Result<Session, SessionError> {
        let wanted = match target {
            Target::Cpu => return Ok(Session { gpu: None }),
            Target::Auto | Target::Gpu => "",
            Target::Named(text) => text.as_str(),
        };
        let adapters = adapters();
        let names: Vec<String> = adapters.iter().map(|a| adapter_name(&a.get_info())).collect();
        let matches = |name: &String| name.to_lowercase().contains(&wanted.to_lowercase());
        let opened = match names.iter().position(matches) {
            Some(i) => Gpu::open(&adapters[i]),
            None => Err(SessionError::NoAdapter {
                wanted: if wanted.is_empty() { "any GPU".into() } else { wanted.into() },
                found: if names.is_empty() { "no adapter at all".into() } else { names.join(", ") },
            }),
        };
        match opened {
            Err(_) if *target == Target::Auto => Ok(Session { gpu: None }),
            opened => Ok(Session { gpu: Some(opened?) }),
        }
    }

    /// The adapter in use, `None` for the CPU path.
    pub fn adapter(&self) -> Option<&wgpu::AdapterInfo> {
        self.gpu.as_ref().map(|gpu| &gpu.info)
    }

    /// Clips gradients in place and reports. On a GPU each tensor gets a buffer of its own.
    ///
    /// ```
    /// use gradclip::{Clip, Session, Target, cpu::GradMut};
    ///
    /// let session = Session::open(&Target::Auto)?;
    /// let mut w = [300.0f32, 400.0];
    /// let report = session.clip(&mut [GradMut::new("w", &mut w)], &Clip::global_norm(1.0))?;
    /// assert_eq!(report.norm(), Some(500.0));
    /// assert_eq!(w, [0.6, 0.8]);
    /// # Ok::<(), gradclip::SessionError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// A clip that does not validate, gradients larger than the device's buffers, memory that ran
    /// out, a device that was lost. Gradients are then untouched.
    pub fn clip(&self, grads: &mut [GradMut<'_>], clip: &Clip) -> Result<Report, SessionError> {
        match &self.gpu {
            None => Ok(cpu::clip(grads, clip)?),
            Some(gpu) => gpu.clip(grads, clip),
        }
    }
}

impl Gpu {
    fn open(adapter: &wgpu::Adapter) -> Result<Gpu, SessionError> {
        let info = adapter.get_info();
        let no_device = |message: String| SessionError::NoDevice { adapter: adapter_name(&info), message };
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("gradclip session"),
            required_limits: Clipper::required_limits(adapter),
            ..Default::default()
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))
            .map_err(|error| no_device(error.to_string()))?;
        let clipper = Clipper::new(&device).map_err(|error| no_device(error.to_string()))?;
        Ok(Gpu { info, device, queue, clipper })
    }

    fn clip(&self, grads: &mut [GradMut<'_>], clip: &Clip) -> Result<Report, SessionError> {
        let infos: Vec<TensorInfo> = grads.iter().map(GradMut::info).collect();
        let parameters: Vec<_> = grads.iter().map(GradMut::values).collect();
        let mut tensors: Vec<_> = grads.iter_mut().map(GradMut::contiguous).collect();
        let mut uploaded = Vec::with_capacity(tensors.len());
        for ((info, tensor), parameter) in infos.iter().zip(&tensors).zip(parameters) {
            let buffer = self.upload(info, &tensor.values())?;
            let mut grad = Grad::range(&*info.name, &buffer, 0, info.elements).dtype(info.dtype);
            grad.shape.clone_from(&info.shape);
            grad.group.clone_from(&info.group);
            if let Some(values) = parameter {
                grad = grad.parameter(&self.upload(info, &values)?, 0, values.dtype());
            }
            uploaded.push(grad);
        }
        let pass = self.clipper.prepare(&uploaded, clip)?;
        let mut encoder = self.device.create_command_encoder(&Default::default());
        pass.record(&mut encoder);
        let read_back = pass.read_back(&mut encoder)?;
        self.queue.submit([encoder.finish()]);
        let report = read_back.wait(&self.device)?;
        let whole = report.changed_segments > 0;
        let changed = |t: &TensorReport| report.segments.get(t.segment).map_or(whole, |s| s.changed);
        let changed: Vec<bool> = report.tensors.iter().map(changed).collect();
        // All arrive before any is written, so that a device lost meanwhile leaves none half done.
        let results = self.download(&uploaded, &changed)?;
        for (i, bytes) in results {
            tensors[i].set_bytes(&bytes);
        }
        tensors.into_iter().for_each(cpu::Contiguous::write_back);
        Ok(report)
    }

    fn upload(&self, info: &TensorInfo, values: &cpu::Values<'_>) -> Result<wgpu::Buffer, PrepareError> {
        let (required, given) = (values.bytes().len() as u64, self.device.limits().max_buffer_size);
        if required > given {
            return Err(PrepareError::BufferSize { tensor: info.name.to_string(), required, given });
        }
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
        caught(&self.device, "uploading a tensor", || {
            filled(&self.device, "gradclip tensor", values.bytes(), usage)
        })?
    }

    /// The bytes of the tensors marked, a bounded number of them on their way at once.
    fn download(&self, grads: &[Grad], marked: &[bool]) -> Result<Vec<(usize, Vec<u8>)>, SessionError> {
        let mut results = Vec::new();
        let mut batch = Vec::new();
        let mut bytes = 0;
        for (i, grad) in grads.iter().enumerate().filter(|&(i, g)| marked[i] && g.elements > 0) {
            batch.push((i, grad));
            bytes += grad.buffer.size();
            if bytes >= DOWNLOAD {
                self.download_batch(&batch, &mut results)?;
                batch.clear();
                bytes = 0;
            }
        }
        self.download_batch(&batch, &mut results)?;
        Ok(results)
    }

    fn download_batch(
        &self,
        batch: &[(usize, &Grad)],
        results: &mut Vec<(usize, Vec<u8>)>,
    ) -> Result<(), SessionError> {
        let failed = |error: &dyn std::fmt::Display| ReadBackError::Map { message: error.to_string() };
        let staged: Vec<wgpu::Buffer> = caught(&self.device, "downloading gradients", || {
            let mut encoder = self.device.create_command_encoder(&Default::default());
            let staged = batch
                .iter()
                .map(|(_, grad)| {
                    let staging = self.device.create_buffer(&wgpu::BufferDescriptor {
                        label: Some("gradclip download"),
                        size: grad.buffer.size(),
                        usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
                        mapped_at_creation: false,
                    });
                    encoder.copy_buffer_to_buffer(&grad.buffer, 0, &staging, 0, None);
                    staging
                })
                .collect();
            self.queue.submit([encoder.finish()]);
            staged
        })?;
        staged.iter().for_each(|staging| staging.map_async(wgpu::MapMode::Read, .., |_| {}));
        self.device
            .poll(wgpu::PollType::wait_indefinitely())
            .map_err(|error| ReadBackError::Wait { message: error.to_string() })?;
        for (&(i, grad), staging) in batch.iter().zip(&staged) {
            let view = staging.get_mapped_range(..).map_err(|error| failed(&error))?;
            results.push((i, view[..(grad.elements * grad.dtype.size()) as usize].to_vec()));
        }
        Ok(())
    }
}
