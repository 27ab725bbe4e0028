//! Gradients to a device, through a pass, and back: everything here blocks.

use crate::clip::Clip;
use crate::cpu::{self, GradMut};
use crate::error::{PlanError, PrepareError, ReadBackError, SessionError};
use crate::gpu::{Clipper, caught, filled};
use crate::grad::{DType, Grad};
use crate::history::History;
use crate::report::{Report, TensorReport};
use crate::segments::TensorInfo;

use super::adapter_name;

/// Bytes of gradients that are on their way at once.
const AT_ONCE: u64 = 256 << 20;

/// A device with its kernels.
#[derive(Debug)]
pub(super) struct Gpu {
    pub(super) info: wgpu::AdapterInfo,
    device: wgpu::Device,
    queue: wgpu::Queue,
    clipper: Clipper,
}

impl Gpu {
    pub(super) fn open(adapter: &wgpu::Adapter) -> Result<Gpu, SessionError> {
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

    pub(super) fn clip(
        &self,
        grads: &mut [GradMut<'_>],
        clip: &Clip,
        history: &mut History,
    ) -> Result<Report, SessionError> {
        let infos: Vec<TensorInfo> = grads.iter().map(GradMut::info).collect();
        let parameters: Vec<_> = grads.iter().map(GradMut::values).collect();
        check_dtypes(&infos, &parameters)?;
        let mut tensors: Vec<_> = grads.iter_mut().map(GradMut::contiguous).collect();
        let buffers = self.upload(infos.iter().zip(tensors.iter().map(cpu::Contiguous::values)))?;
        let named = infos.iter().zip(&parameters).filter_map(|(info, values)| Some((info, (*values)?)));
        let mut of_parameters = self.upload(named)?.into_iter();
        let mut uploaded = Vec::with_capacity(tensors.len());
        for ((info, buffer), parameter) in infos.iter().zip(buffers).zip(&parameters) {
            let mut grad = Grad::range(&*info.name, &buffer, 0, info.elements).dtype(info.dtype);
            grad.shape.clone_from(&info.shape);
            grad.group.clone_from(&info.group);
            if let Some(values) = parameter
                && let Some(buffer) = of_parameters.next()
            {
                grad = grad.parameter(&buffer, 0, values.dtype());
            }
            uploaded.push(grad);
        }
        let pass = self.clipper.prepare(&uploaded, clip)?;
        pass.restore_history(&self.queue, history)?;
        let mut encoder = self.device.create_command_encoder(&Default::default());
        pass.record(&mut encoder);
        let read_back = pass.read_back(&mut encoder)?;
        let saved = pass.save_history(&mut encoder)?;
        self.queue.submit([encoder.finish()]);
        let report = read_back.wait(&self.device)?;
        let saved = saved.wait(&self.device)?;
        let whole = report.changed_segments > 0;
        let changed = |t: &TensorReport| report.segments.get(t.segment).map_or(whole, |s| s.changed);
        let changed: Vec<bool> = report.tensors.iter().map(changed).collect();
        // All arrive before any is written, so that a device lost meanwhile leaves none half done.
        let results = self.download(&uploaded, &changed)?;
        for (i, bytes) in results {
            tensors[i].set_bytes(&bytes);
        }
        tensors.into_iter().for_each(cpu::Contiguous::write_back);
        *history = saved;
        Ok(report)
    }

    /// Each tensor in a buffer of its own. A bounded number of bytes at once goes through one mapped buffer:
    /// wgpu would make one more for each tensor that is mapped by itself.
    fn upload<'v>(
        &self,
        tensors: impl Iterator<Item = (&'v TensorInfo, cpu::Values<'v>)>,
    ) -> Result<Vec<wgpu::Buffer>, PrepareError> {
        let given = self.device.limits().max_buffer_size;
        let (mut buffers, mut batch, mut bytes) = (Vec::new(), Vec::new(), 0);
        for (info, values) in tensors {
            let required = (values.bytes().len() as u64).next_multiple_of(4).max(4);
            if required > given {
                return Err(PrepareError::BufferSize { tensor: info.name.to_string(), required, given });
            }
            if bytes + required > AT_ONCE.min(given) && !batch.is_empty() {
                self.upload_batch(&std::mem::take(&mut batch), bytes, &mut buffers)?;
                bytes = 0;
            }
            batch.push(values);
            bytes += required;
        }
        self.upload_batch(&batch, bytes, &mut buffers)?;
        Ok(buffers)
    }

    fn upload_batch(
        &self,
        batch: &[cpu::Values<'_>],
        bytes: u64,
        buffers: &mut Vec<wgpu::Buffer>,
    ) -> Result<(), PrepareError> {
        if batch.is_empty() {
            return Ok(());
        }
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let sizes = || batch.iter().map(|values| values.bytes().len().next_multiple_of(4).max(4));
        let mut all = Vec::with_capacity(bytes as usize);
        for (values, size) in batch.iter().zip(sizes()) {
            let end = all.len() + size;
            all.extend_from_slice(values.bytes());
            all.resize(end, 0);
        }
        let made = caught(&self.device, "uploading tensors", || {
            let staging = filled(&self.device, "gradclip upload", &all, wgpu::BufferUsages::COPY_SRC)?;
            let mut encoder = self.device.create_command_encoder(&Default::default());
            let mut at = 0;
            let made = sizes().map(|size| {
                let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some("gradclip tensor"),
                    size: size as u64,
                    usage,
                    mapped_at_creation: false,
                });
                encoder.copy_buffer_to_buffer(&staging, at, &buffer, 0, size as u64);
                at += size as u64;
                buffer
            });
            let made: Vec<wgpu::Buffer> = made.collect();
            self.queue.submit([encoder.finish()]);
            Ok::<_, PrepareError>(made)
        })?;
        buffers.extend(made?);
        Ok(())
    }

    /// The bytes of the tensors marked, a bounded number of them on their way at once.
    fn download(&self, grads: &[Grad], marked: &[bool]) -> Result<Vec<(usize, Vec<u8>)>, SessionError> {
        let most = AT_ONCE.min(self.device.limits().max_buffer_size);
        let mut results = Vec::new();
        let mut batch: Vec<(usize, &Grad)> = Vec::new();
        let mut bytes = 0;
        for (i, grad) in grads.iter().enumerate().filter(|&(i, g)| marked[i] && g.elements() > 0) {
            if bytes + grad.buffer.size() > most && !batch.is_empty() {
                self.download_batch(&batch, bytes, &mut results)?;
                batch.clear();
                bytes = 0;
            }
            batch.push((i, grad));
            bytes += grad.buffer.size();
        }
        if !batch.is_empty() {
            self.download_batch(&batch, bytes, &mut results)?;
        }
        Ok(results)
    }

    /// One buffer is mapped for all: a driver's work for each mapped one grows with their number.
    fn download_batch(
        &self,
        batch: &[(usize, &Grad)],
        bytes: u64,
        results: &mut Vec<(usize, Vec<u8>)>,
    ) -> Result<(), SessionError> {
        let staging = caught(&self.device, "downloading gradients", || {
            let staging = self.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("gradclip download"),
                size: bytes,
                usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
                mapped_at_creation: false,
            });
            let mut encoder = self.device.create_command_encoder(&Default::default());
            let mut at = 0;
            for (_, grad) in batch {
                encoder.copy_buffer_to_buffer(&grad.buffer, 0, &staging, at, grad.buffer.size());
                at += grad.buffer.size();
            }
            self.queue.submit([encoder.finish()]);
            staging
        })?;
        staging.map_async(wgpu::MapMode::Read, .., |_| {});
        self.device
            .poll(wgpu::PollType::wait_indefinitely())
            .map_err(|error| ReadBackError::Wait { message: error.to_string() })?;
        let view = staging
            .get_mapped_range(..)
            .map_err(|error| ReadBackError::Map { message: error.to_string() })?;
        let mut at = 0;
        for &(i, grad) in batch {
            let len = (grad.elements() * grad.dtype.size()) as usize;
            results.push((i, view[at..at + len].to_vec()));
            at += grad.buffer.size() as usize;
        }
        Ok(())
    }
}

/// That an adapter has kernels for all tensors and parameters.
fn check_dtypes(infos: &[TensorInfo], parameters: &[Option<cpu::Values<'_>>]) -> Result<(), PrepareError> {
    let double = |(info, parameter): &(&TensorInfo, &Option<cpu::Values<'_>>)| {
        info.dtype == DType::F64 || parameter.is_some_and(|p| p.dtype() == DType::F64)
    };
    match infos.iter().zip(parameters).find(double) {
        None => Ok(()),
        Some((info, _)) => Err(PlanError::DType { tensor: info.name.to_string(), given: DType::F64 }.into()),
    }
}
