//! Kernels of a bench's own.
#![allow(unreachable_pub)]

use gradclip::wgpu;

/// Several entry points of one text over the same writable buffers, in bind group 0.
pub struct Compute {
    pub layout: wgpu::BindGroupLayout,
    pub pipelines: Vec<wgpu::ComputePipeline>,
}

impl Compute {
    pub fn new<'e>(
        device: &wgpu::Device,
        wgsl: &str,
        bindings: u32,
        entries: impl IntoIterator<Item = &'e str>,
    ) -> Compute {
        let label = Some("plain");
        let source = wgpu::ShaderSource::Wgsl(wgsl.into());
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor { label, source });
        let writable = |binding| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: wgpu::BufferBindingType::Storage { read_only: false },
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        };
        let bound: Vec<_> = (0..bindings).map(writable).collect();
        let layout =
            device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label, entries: &bound });
        let of_pipelines = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label,
            bind_group_layouts: &[Some(&layout)],
            ..Default::default()
        });
        let pipeline = |entry: &str| {
            device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(entry),
                layout: Some(&of_pipelines),
                module: &module,
                entry_point: Some(entry),
                compilation_options: Default::default(),
                cache: None,
            })
        };
        let pipelines = entries.into_iter().map(pipeline).collect();
        Compute { layout, pipelines }
    }

    /// One resource a binding.
    pub fn bind<'r>(
        &self,
        device: &wgpu::Device,
        resources: impl IntoIterator<Item = wgpu::BindingResource<'r>>,
    ) -> wgpu::BindGroup {
        let entries: Vec<_> = (0..)
            .zip(resources)
            .map(|(binding, resource)| wgpu::BindGroupEntry { binding, resource })
            .collect();
        device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("plain"),
            layout: &self.layout,
            entries: &entries,
        })
    }
}
