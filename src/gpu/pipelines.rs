//! Compiled kernels, each made the first time that a prepared pass needs it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::PrepareError;
use crate::kernels::{Binding, Variant};

use super::scope::caught;

/// A compiled kernel with the layouts of its bind groups.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub(crate) pipeline: wgpu::ComputePipeline,
    pub(crate) tables: wgpu::BindGroupLayout,
    pub(crate) slots: Option<wgpu::BindGroupLayout>,
}

/// A kernel, or that it was not compiled yet.
type Slot = Arc<Mutex<Option<Arc<Pipeline>>>>;

/// The kernels compiled so far.
#[derive(Debug, Default)]
pub(crate) struct Pipelines {
    made: Mutex<HashMap<Variant, Slot>>,
}

impl Pipelines {
    pub(crate) fn get(&self, device: &wgpu::Device, variant: Variant) -> Result<Arc<Pipeline>, PrepareError> {
        // A thread that panicked while holding a lock left a complete map behind, and whole kernels.
        let slot =
            self.made.lock().unwrap_or_else(PoisonError::into_inner).entry(variant).or_default().clone();
        // Drivers take long to compile: whoever needs another kernel does not wait for this one.
        let mut made = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipeline) = &*made {
            return Ok(pipeline.clone());
        }
        let pipeline = Arc::new(caught(device, "compiling a shader", || compile(device, variant))?);
        *made = Some(pipeline.clone());
        Ok(pipeline)
    }
}

fn compile(device: &wgpu::Device, variant: Variant) -> Pipeline {
    let kernel = variant.kernel;
    let label = Some(kernel.stem());
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label,
        source: wgpu::ShaderSource::Wgsl(variant.source().into()),
    });
    let tables = bind_group_layout(device, label, &variant.bindings());
    let bound = variant.slots as usize * variant.pattern.bindings().max(1);
    let slots = kernel.slots().map(|access| bind_group_layout(device, label, &vec![access; bound]));
    let mut groups = vec![Some(&tables)];
    groups.extend(slots.as_ref().map(Some));
    let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label,
        bind_group_layouts: &groups,
        immediate_size: 0,
    });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label,
        layout: Some(&layout),
        module: &module,
        entry_point: Some(kernel.entry()),
        compilation_options: wgpu::PipelineCompilationOptions {
            // Kernels initialise what they share themselves.
            zero_initialize_workgroup_memory: false,
            ..Default::default()
        },
        cache: None,
    });
    Pipeline { pipeline, tables, slots }
}

fn bind_group_layout(
    device: &wgpu::Device,
    label: Option<&str>,
    bindings: &[Binding],
) -> wgpu::BindGroupLayout {
    let entries: Vec<_> = bindings
        .iter()
        .enumerate()
        .map(|(i, binding)| wgpu::BindGroupLayoutEntry {
            binding: i as u32,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: match binding {
                    Binding::Uniform => wgpu::BufferBindingType::Uniform,
                    Binding::Read => wgpu::BufferBindingType::Storage { read_only: true },
                    Binding::ReadWrite => wgpu::BufferBindingType::Storage { read_only: false },
                },
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        })
        .collect();
    device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label, entries: &entries })
}
