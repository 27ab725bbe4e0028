//! What the example needs of wgpu: a device, buffers, pipelines, and a way back.

use std::error::Error;

use gradclip::{Clipper, wgpu};
use wgpu::BufferUsages as Usage;

pub(super) struct Gpu {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
}

impl Gpu {
    pub(super) fn open(adapter: &wgpu::Adapter) -> Result<Gpu, Box<dyn Error>> {
        let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
            required_limits: Clipper::recommended_limits(adapter),
            ..Default::default()
        }))?;
        Ok(Gpu { device, queue })
    }

    /// Zeros: so many words of four bytes.
    pub(super) fn buffer(&self, label: &str, words: usize, usage: Usage) -> wgpu::Buffer {
        let size = words as u64 * 4;
        let label = Some(label);
        self.device.create_buffer(&wgpu::BufferDescriptor { label, size, usage, mapped_at_creation: false })
    }

    /// Storage that kernels, copies and the host write, and copies read.
    pub(super) fn storage(&self, label: &str, words: usize) -> wgpu::Buffer {
        self.buffer(label, words, Usage::STORAGE | Usage::COPY_DST | Usage::COPY_SRC)
    }

    pub(super) fn write<T: bytemuck::NoUninit>(&self, buffer: &wgpu::Buffer, values: &[T]) {
        self.queue.write_buffer(buffer, 0, bytemuck::cast_slice(values));
    }

    pub(super) fn encoder(&self) -> wgpu::CommandEncoder {
        self.device.create_command_encoder(&Default::default())
    }

    pub(super) fn module(&self, label: &str, text: String) -> wgpu::ShaderModule {
        let source = wgpu::ShaderSource::Wgsl(text.into());
        self.device.create_shader_module(wgpu::ShaderModuleDescriptor { label: Some(label), source })
    }

    /// The only entry point of a module, unless one is named; a layout of its own, unless one is given.
    pub(super) fn pipeline(
        &self,
        module: &wgpu::ShaderModule,
        entry_point: Option<&str>,
        layout: Option<&wgpu::PipelineLayout>,
    ) -> wgpu::ComputePipeline {
        self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: entry_point,
            layout,
            module,
            entry_point,
            compilation_options: Default::default(),
            cache: None,
        })
    }

    pub(super) fn bind(
        &self,
        layout: &wgpu::BindGroupLayout,
        resources: &[wgpu::BindingResource<'_>],
    ) -> wgpu::BindGroup {
        let entries = (0..).zip(resources).map(|(binding, resource)| {
            let resource = resource.clone();
            wgpu::BindGroupEntry { binding, resource }
        });
        let entries: Vec<_> = entries.collect();
        self.device.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout, entries: &entries })
    }

    /// Waits for everything submitted, and reads a buffer.
    pub(super) fn read<T: bytemuck::Pod>(&self, buffer: &wgpu::Buffer) -> Result<Vec<T>, Box<dyn Error>> {
        let staging = self.buffer("staging", buffer.size() as usize / 4, Usage::COPY_DST | Usage::MAP_READ);
        let mut encoder = self.encoder();
        encoder.copy_buffer_to_buffer(buffer, 0, &staging, 0, None);
        self.queue.submit([encoder.finish()]);
        staging.map_async(wgpu::MapMode::Read, .., |_| {});
        self.device.poll(wgpu::PollType::wait_indefinitely())?;
        Ok(bytemuck::pod_collect_to_vec(&staging.get_mapped_range(..)?))
    }
}
