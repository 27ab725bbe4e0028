//! The buffers and bind groups of one prepared pass.

use std::sync::Arc;

use bytemuck::{NoUninit, Zeroable};
use wgpu::BufferUsages as Usage;

use crate::clip::Kind;
use crate::error::PrepareError;
use crate::grad::DType;
use crate::kernels::{Kernel, Variant};
use crate::layout::{ChunkRow, Job, Outcome, Partial, Run, SeamRow, Setting, Sum};
use crate::plan::{Combine, Dispatch, Plan, Window};

use super::clipper::Clipper;
use super::pipelines::Pipeline;

/// One dispatch, ready to record.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) tables: wgpu::BindGroup,
    pub(crate) slots: Option<wgpu::BindGroup>,
    pub(crate) grid: [u32; 2],
}

/// Everything that a pass owns on the device.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// Chunks, tensors, segments.
    pub(crate) norm: Vec<Step>,
    /// Coefficient, gradients.
    pub(crate) apply: Vec<Step>,
    pub(crate) partials: wgpu::Buffer,
    pub(crate) tensor_sums: wgpu::Buffer,
    pub(crate) segment_sums: wgpu::Buffer,
    pub(crate) settings: wgpu::Buffer,
    pub(crate) outcomes: wgpu::Buffer,
}

impl Workspace {
    pub(crate) fn new(
        clipper: &Clipper,
        buffers: &[wgpu::Buffer],
        plan: &Plan,
        setting: Setting,
        kind: Kind,
    ) -> Result<Workspace, PrepareError> {
        let make = Make { clipper, kind };
        let result = Usage::STORAGE | Usage::COPY_SRC;
        let (tensors, segments) = (plan.tensor_count(), plan.segment_count());
        let rows = make.table("gradclip chunks", &plan.rows, ChunkRow::zeroed(), Usage::STORAGE)?;
        let seams = make.table("gradclip seams", &plan.seams, SeamRow::zeroed(), Usage::STORAGE)?;
        let partials = make.empty::<Partial>("gradclip partials", plan.partials as usize, result);
        // Writable from outside, so that sums over machines can be put back.
        let sums = result | Usage::COPY_DST;
        let tensor_sums = make.empty::<Sum>("gradclip tensor sums", tensors, sums);
        let segment_sums = make.empty::<Sum>("gradclip segment sums", segments, sums);
        let settings = vec![setting; segments];
        let settings =
            make.table("gradclip settings", &settings, setting, Usage::STORAGE | Usage::COPY_DST)?;
        let outcomes = make.empty::<Outcome>("gradclip outcomes", segments, result);

        let mut norm = Vec::new();
        for dispatch in &plan.dispatches {
            norm.push(make.rows(Kernel::Reduce, dispatch, buffers, [&rows, &partials])?);
        }
        norm.push(make.combine(Kernel::Tensors, &plan.tensors, [&partials, &tensor_sums])?);
        norm.push(make.combine(Kernel::Segments, &plan.segments, [&tensor_sums, &segment_sums])?);
        let mut apply = vec![make.coefficient(plan, [&segment_sums, &settings, &outcomes])?];
        for dispatch in &plan.dispatches {
            apply.push(make.rows(Kernel::Apply, dispatch, buffers, [&rows, &outcomes])?);
            if !dispatch.seams.is_empty() {
                apply.push(make.rows(Kernel::Seams, dispatch, buffers, [&seams, &outcomes])?);
            }
        }
        Ok(Workspace { norm, apply, partials, tensor_sums, segment_sums, settings, outcomes })
    }
}

struct Make<'a> {
    clipper: &'a Clipper,
    kind: Kind,
}

impl Make<'_> {
    /// A kernel over the chunks or seams of a dispatch.
    fn rows(
        &self,
        kernel: Kernel,
        dispatch: &Dispatch,
        buffers: &[wgpu::Buffer],
        tables: [&wgpu::Buffer; 2],
    ) -> Result<Step, PrepareError> {
        let (rows, grid) = match kernel {
            Kernel::Seams => (&dispatch.seams, dispatch.seam_grid),
            _ => (&dispatch.rows, dispatch.grid),
        };
        let job = Job { first_row: rows.start, rows: rows.end - rows.start, ..Job::zeroed() };
        let slots = Some((buffers, dispatch.windows.as_slice()));
        self.step(kernel, dispatch.dtype, job, &tables, slots, grid)
    }

    fn combine(
        &self,
        kernel: Kernel,
        combine: &Combine,
        [items, sums]: [&wgpu::Buffer; 2],
    ) -> Result<Step, PrepareError> {
        let runs = self.table("gradclip runs", &combine.runs, Run::zeroed(), Usage::STORAGE)?;
        let job = Job { serial: combine.serial, runs: combine.runs.len() as u32, ..Job::zeroed() };
        self.step(kernel, DType::F32, job, &[&runs, items, sums], None, combine.grid)
    }

    fn coefficient(&self, plan: &Plan, tables: [&wgpu::Buffer; 3]) -> Result<Step, PrepareError> {
        let job = Job { runs: plan.segment_count() as u32, ..Job::zeroed() };
        self.step(Kernel::Coefficient, DType::F32, job, &tables, None, plan.segment_grid)
    }

    fn step(
        &self,
        kernel: Kernel,
        dtype: DType,
        job: Job,
        tables: &[&wgpu::Buffer],
        slots: Option<(&[wgpu::Buffer], &[Window])>,
        grid: [u32; 2],
    ) -> Result<Step, PrepareError> {
        let Clipper { device, pipelines, options, .. } = self.clipper;
        let pipeline = pipelines.get(
            device,
            Variant {
                kernel,
                kind: self.kind,
                dtype,
                slots: slots.map_or(0, |(_, windows)| windows.len() as u32),
                workgroup_size: options.workgroup_size,
            },
        )?;
        let job = self.table("gradclip job", &[job], job, Usage::UNIFORM)?;
        let tables: Vec<_> = [&job].iter().chain(tables).map(|b| b.as_entire_binding()).collect();
        let slots = slots.zip(pipeline.slots.as_ref()).map(|((buffers, windows), layout)| {
            let bound = windows.iter().map(|w| {
                wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer: &buffers[w.buffer],
                    offset: w.offset,
                    size: wgpu::BufferSize::new(w.size),
                })
            });
            bind_group(device, kernel, layout, bound)
        });
        Ok(Step { tables: bind_group(device, kernel, &pipeline.tables, tables), slots, grid, pipeline })
    }

    fn empty<T>(&self, label: &str, len: usize, usage: Usage) -> wgpu::Buffer {
        self.clipper.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: (len.max(1) * size_of::<T>()) as u64,
            usage,
            mapped_at_creation: false,
        })
    }

    /// A buffer that holds `rows`, or one `filler` where there are none: nothing empty can be bound.
    fn table<T: NoUninit>(
        &self,
        label: &'static str,
        rows: &[T],
        filler: T,
        usage: Usage,
    ) -> Result<wgpu::Buffer, PrepareError> {
        let filler = [filler];
        let rows = if rows.is_empty() { &filler } else { rows };
        filled(&self.clipper.device, label, bytemuck::cast_slice(rows), usage)
    }
}

/// A buffer with the given contents, padded with zeros to whole words and to at least one.
pub(crate) fn filled(
    device: &wgpu::Device,
    label: &'static str,
    bytes: &[u8],
    usage: Usage,
) -> Result<wgpu::Buffer, PrepareError> {
    let buffer = device.create_buffer(&wgpu::BufferDescriptor {
        label: Some(label),
        size: bytes.len().next_multiple_of(4).max(4) as u64,
        usage,
        mapped_at_creation: true,
    });
    let mut view = buffer
        .get_mapped_range_mut(..)
        .map_err(|error| PrepareError::Device { what: label, message: error.to_string() })?;
    view.slice(..bytes.len()).copy_from_slice(bytes);
    drop(view);
    buffer.unmap();
    Ok(buffer)
}

fn bind_group<'a>(
    device: &wgpu::Device,
    kernel: Kernel,
    layout: &wgpu::BindGroupLayout,
    resources: impl IntoIterator<Item = wgpu::BindingResource<'a>>,
) -> wgpu::BindGroup {
    let entries: Vec<_> = resources
        .into_iter()
        .enumerate()
        .map(|(i, resource)| wgpu::BindGroupEntry { binding: i as u32, resource })
        .collect();
    device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: Some(kernel.stem()),
        layout,
        entries: &entries,
    })
}
