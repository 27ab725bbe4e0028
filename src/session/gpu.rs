//! Gradients to a device, through a pass, and back: everything here blocks.

use std::sync::Arc;

use crate::clip::Clip;
use crate::cpu::{self, GradMut};
use crate::error::{DeviceError, PlanError, PrepareError, SessionError};
use crate::gpu::{Clipper, Place, caught, filled_in, waited};
use crate::grad::Grad;
use crate::history::History;
use crate::report::{Report, TensorReport};
use crate::tensor::{DType, TensorInfo};

/// Bytes of gradients that are on their way at once.
const AT_ONCE: u64 = 256 << 20;
/// Of the first byte of a tensor: that of the widest loads.
const ALIGNMENT: u64 = 16;

/// Where a tensor lies on the device.
struct Placed {
    buffer: wgpu::Buffer,
    offset: u64,
}

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
        let adapter_name = || adapter_name(&info);
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("gradclip session"),
            required_limits: Clipper::recommended_limits(adapter),
            ..Default::default()
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))
            .map_err(|error| DeviceError::new("opening it", error))
            .map_err(|source| SessionError::NoDevice { adapter: adapter_name(), source })?;
        let clipper = Clipper::new(&device)
            .map_err(|source| SessionError::Unfit { adapter: adapter_name(), source })?;
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
        let placed = self.upload(infos.iter().zip(tensors.iter().map(cpu::Contiguous::values)))?;
        let named = infos.iter().zip(&parameters).filter_map(|(info, values)| Some((info, (*values)?)));
        let mut of_parameters = self.upload(named)?.into_iter();
        let mut uploaded = Vec::with_capacity(tensors.len());
        for ((info, at), parameter) in infos.iter().zip(placed).zip(&parameters) {
            let mut grad = Grad::range(&*info.name, &at.buffer, at.offset, info.elements).dtype(info.dtype);
            grad.shape.clone_from(&info.shape);
            grad.group.clone_from(&info.group);
            if let Some(values) = parameter
                && let Some(at) = of_parameters.next()
            {
                grad = grad.parameter(&at.buffer, at.offset, values.dtype());
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
        let report = read_back.wait()?;
        let saved = saved.wait()?;
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

    /// Tensors one after another in as few buffers as their number of bytes allows: a buffer, a copy and a dispatch
    /// for each would cost more than their elements, where they are many and short.
    fn upload<'v>(
        &self,
        tensors: impl Iterator<Item = (&'v TensorInfo, cpu::Values<'v>)>,
    ) -> Result<Vec<Placed>, PrepareError> {
        let given = self.device.limits().max_buffer_size;
        let (mut placed, mut arena, mut bytes) = (Vec::new(), Vec::new(), 0);
        for (info, values) in tensors {
            let required = (values.bytes().len() as u64).next_multiple_of(ALIGNMENT);
            if required > given {
                return Err(PrepareError::BufferSize { tensor: info.name.to_string(), required, given });
            }
            if bytes + required > AT_ONCE.min(given) && !arena.is_empty() {
                self.upload_arena(&std::mem::take(&mut arena), bytes, &mut placed)?;
                bytes = 0;
            }
            arena.push((bytes, values));
            bytes += required;
        }
        self.upload_arena(&arena, bytes, &mut placed)?;
        Ok(placed)
    }

    fn upload_arena(
        &self,
        tensors: &[(u64, cpu::Values<'_>)],
        bytes: u64,
        placed: &mut Vec<Placed>,
    ) -> Result<(), PrepareError> {
        if tensors.is_empty() {
            return Ok(());
        }
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
        let pieces = tensors.iter().map(|(at, values)| (*at as usize, values.bytes()));
        let buffer = waited(caught(&self.device, "uploading tensors", || {
            let buffer = filled_in(&self.device, "gradclip tensors", bytes, pieces, usage);
            // What was mapped is copied, and freed when that is done.
            self.queue.submit([]);
            buffer
        }))??;
        placed.extend(tensors.iter().map(|&(offset, _)| Placed { buffer: buffer.clone(), offset }));
        Ok(())
    }

    /// The bytes of the tensors marked, a bounded number of them on their way at once.
    fn download(&self, grads: &[Grad], marked: &[bool]) -> Result<Vec<(usize, Vec<u8>)>, SessionError> {
        let most = AT_ONCE.min(self.device.limits().max_buffer_size);
        let mut results = Vec::new();
        let mut batch: Vec<(usize, &Grad)> = Vec::new();
        let mut bytes = 0;
        for (i, grad) in grads.iter().enumerate().filter(|&(i, g)| marked[i] && g.elements() > 0) {
            if bytes + padded(grad) > most && !batch.is_empty() {
                self.download_batch(&batch, bytes, &mut results)?;
                batch.clear();
                bytes = 0;
            }
            batch.push((i, grad));
            bytes += padded(grad);
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
        // An error of the submission is caught here, so that what is mapped has been copied.
        let read_back = waited(caught(&self.device, "downloading gradients", || {
            // Neighbours in one copy.
            let runs = batch.chunk_by(|(_, one), (_, next)| {
                one.buffer == next.buffer && one.offset + padded(one) == next.offset
            });
            let copies = runs.map(|run| {
                let size = run.iter().map(|(_, grad)| padded(grad)).sum();
                (&run[0].1.buffer, run[0].1.offset, size)
            });
            let own: Vec<_> = batch
                .iter()
                .map(|&(i, grad)| (i, grad.elements() * grad.dtype.size(), padded(grad)))
                .collect();
            let place = Arc::new(Place::new(&self.device, "gradclip download", bytes, None));
            let mut encoder = self.device.create_command_encoder(&Default::default());
            let read_back = place.read_back(&mut encoder, copies, move |bytes| Ok(cut(bytes, &own)));
            self.queue.submit([encoder.finish()]);
            read_back
        }))
        .map_err(PrepareError::from)?;
        results.extend(read_back.wait()?);
        Ok(())
    }
}

/// The bytes of each tensor: its number, how many it has, and how far the next one is.
fn cut(bytes: &[u8], tensors: &[(usize, u64, u64)]) -> Vec<(usize, Vec<u8>)> {
    let mut at = 0;
    let one = |&(i, len, padded): &(usize, u64, u64)| {
        let own = bytes[at..at + len as usize].to_vec();
        at += padded as usize;
        (i, own)
    };
    tensors.iter().map(one).collect()
}

/// Bytes from the start of a tensor to where the next one may lie.
fn padded(grad: &Grad) -> u64 {
    (grad.elements() * grad.dtype.size()).next_multiple_of(ALIGNMENT)
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

/// `backend/name` of an adapter, as [`Target::Named`](super::Target::Named) matches it.
pub fn adapter_name(info: &wgpu::AdapterInfo) -> String {
    format!("{}/{}", info.backend, info.name)
}
