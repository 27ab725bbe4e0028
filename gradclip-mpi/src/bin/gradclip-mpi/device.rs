//! Clips on an adapter of the machine that a rank runs on.

use std::ops::Range;

use gradclip_mpi::gradclip::{self, Clipper, Grad, Report, Target, wgpu};
use gradclip_mpi::{Agreed, DeviceClip};

use crate::Result;
use crate::checkpoint::File;

pub(crate) struct Device {
    device: wgpu::Device,
    queue: wgpu::Queue,
    clipper: Clipper,
}

/// The adapters that a target names: those of the same kind and backend as the best of them.
fn adapters(target: &Target) -> Vec<wgpu::Adapter> {
    let mut all = gradclip::adapters();
    all.retain(|adapter| {
        let info = adapter.get_info();
        match target {
            Target::Auto => !gradclip::is_software(&info),
            Target::Named(part) => gradclip::adapter_name(&info).to_lowercase().contains(part),
            _ => true,
        }
    });
    let kind = |adapter: &wgpu::Adapter| {
        let info = adapter.get_info();
        (info.device_type, info.backend)
    };
    if let Some(best) = all.first().map(kind) {
        all.retain(|adapter| kind(adapter) == best);
    }
    all
}

/// The adapter of the `local`-th rank of this machine, none for the CPU path.
pub(crate) fn open(target: &Target, local: usize) -> Result<Option<Device>> {
    if *target == Target::Cpu {
        return Ok(None);
    }
    let adapters = adapters(target);
    let adapter = match adapters.len() {
        0 if *target == Target::Auto => return Ok(None),
        0 => return Err(format!("--device: required `{target}`, given no such adapter").into()),
        count => &adapters[local % count],
    };
    let required_limits = Clipper::recommended_limits(adapter);
    let descriptor = wgpu::DeviceDescriptor { required_limits, ..Default::default() };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))?;
    let clipper = Clipper::new(&device)?;
    Ok(Some(Device { device, queue, clipper }))
}

/// Gradients of this rank on its device, prepared.
pub(crate) struct Prepared<'d> {
    on: &'d Device,
    /// One a tensor.
    buffers: Vec<wgpu::Buffer>,
    clip: DeviceClip,
}

impl Device {
    /// Uploads what this rank has read, each tensor to a buffer of its own.
    pub(crate) fn prepare(&self, agreed: &Agreed, own: &[File]) -> Result<Prepared<'_>> {
        let (mut grads, mut buffers) = (Vec::new(), Vec::new());
        for (file, tensor) in own.iter().flat_map(|file| file.tensors.iter().map(move |t| (file, t))) {
            let buffer = self.upload(&tensor.name, &file.bytes[tensor.range.clone()])?;
            grads.push(Grad::range(&*tensor.name, &buffer, 0, tensor.elements()).dtype(tensor.dtype));
            buffers.push(buffer);
        }
        let clip = agreed.prepare_on(&self.clipper, (&self.device, &self.queue), &grads)?;
        Ok(Prepared { on: self, buffers, clip })
    }

    fn upload(&self, name: &str, bytes: &[u8]) -> Result<wgpu::Buffer> {
        let (size, most) = (padded(bytes.len()), self.device.limits().max_buffer_size);
        if size > most {
            let name = name.escape_debug();
            return Err(format!("tensor `{name}`: required at most {most} bytes, given {size}").into());
        }
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
        let descriptor = wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: true };
        let buffer = self.made(&descriptor)?;
        buffer.get_mapped_range_mut(..)?.slice(..bytes.len()).copy_from_slice(bytes);
        buffer.unmap();
        Ok(buffer)
    }

    /// A buffer, or why there is no memory for it.
    fn made(&self, descriptor: &wgpu::BufferDescriptor<'_>) -> Result<wgpu::Buffer> {
        let scope = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let buffer = self.device.create_buffer(descriptor);
        match pollster::block_on(scope.pop()) {
            None => Ok(buffer),
            Some(error) => Err(error.into()),
        }
    }
}

impl Prepared<'_> {
    /// Clips them, by one norm of all ranks, and writes the elements where they were read from.
    pub(crate) fn clip(&mut self, own: &mut [File]) -> Result<Report> {
        let Device { device, queue, .. } = self.on;
        let mut encoder = device.create_command_encoder(&Default::default());
        self.clip.record_norm(&mut encoder)?;
        queue.submit([encoder.finish()]);
        self.clip.wait()?;
        let mut encoder = device.create_command_encoder(&Default::default());
        self.clip.record_apply(&mut encoder)?;
        let report = self.clip.pass().read_back(&mut encoder)?;
        queue.submit([encoder.finish()]);
        let report = report.wait()?;
        let mut buffers = self.buffers.iter();
        for File { bytes, tensors, .. } in own {
            for (tensor, buffer) in tensors.iter().zip(&mut buffers) {
                self.download(buffer, bytes, tensor.range.clone())?;
            }
        }
        Ok(report)
    }

    fn download(&self, from: &wgpu::Buffer, to: &mut [u8], range: Range<usize>) -> Result<()> {
        let Device { device, queue, .. } = self.on;
        let usage = wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ;
        let size = from.size();
        let descriptor = wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
        let staging = self.on.made(&descriptor)?;
        let mut encoder = device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(from, 0, &staging, 0, size);
        queue.submit([encoder.finish()]);
        let (told, mapped) = std::sync::mpsc::channel();
        staging.map_async(wgpu::MapMode::Read, .., move |result| drop(told.send(result)));
        device.poll(wgpu::PollType::wait_indefinitely())?;
        mapped.recv()??;
        let len = range.len();
        to[range].copy_from_slice(&staging.get_mapped_range(..)?[..len]);
        Ok(())
    }
}

/// Bytes of a buffer for so many of elements: whole words that can be copied, and not none.
fn padded(bytes: usize) -> u64 {
    (bytes as u64).next_multiple_of(wgpu::COPY_BUFFER_ALIGNMENT).max(16)
}
