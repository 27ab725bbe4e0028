//! Buffers, bind groups and dispatches.

use std::sync::Arc;

use bytemuck::{NoUninit, Zeroable};
use wgpu::BufferUsages as Usage;

use crate::clip::{Clip, Summation};
use crate::error::PrepareError;
use crate::kernels::{Form, Kernel, Variant};
use crate::layout::{ADAPT_NONE, Hyper, Job, NONE};
use crate::plan::{Dispatch, Pattern, Window, grid};
use crate::tensor::DType;

use super::buffers::filled;
use super::clipper::Clipper;
use super::pipelines::Pipeline;
use super::scope::caught;

/// One dispatch, ready to record.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) tables: wgpu::BindGroup,
    pub(crate) slots: Option<wgpu::BindGroup>,
    pub(crate) grid: [u32; 2],
}

/// Makes buffers, and dispatches over the `buffers` that windows name.
pub(crate) struct Make<'a> {
    pub(super) clipper: &'a Clipper,
    pub(super) buffers: &'a [wgpu::Buffer],
    summation: Summation,
    adapt: u32,
    /// Whether the unscale factor depends on what lies on the device.
    pub(super) scaled: bool,
    /// Of the kernels over whole chunks that are made next.
    form: Form,
    /// Whether kernels that decide can also advance loss scale and optimiser.
    pub(super) advances: bool,
    /// What every job begins as.
    pub(super) job: Job,
    pub(super) jobs: Vec<wgpu::Buffer>,
    /// The kernels of all dispatches so far.
    pub(super) wanted: Wanted,
}

/// Kernels to be compiled once all else is made.
pub(crate) type Wanted = Vec<Arc<Pipeline>>;

impl Clipper {
    /// What `make` makes, and the kernels that it wants compiled, as soon as the device has told that it refuses nothing of it.
    pub(super) async fn ready<T>(
        &self,
        what: &'static str,
        make: impl FnOnce() -> Result<(T, Wanted), PrepareError>,
    ) -> Result<T, PrepareError> {
        let made = async {
            let (made, wanted) = caught(&self.device, what, make).await??;
            self.pipelines.compile(&wanted).await?;
            Ok(made)
        };
        made.await.inspect_err(|_| self.pipelines.forget_uncompiled())
    }
}

/// A buffer of group 0, or a range of it.
#[derive(Clone, Copy)]
pub(super) struct Table<'t> {
    buffer: &'t wgpu::Buffer,
    /// First byte and bytes, if not all.
    range: Option<(u64, u64)>,
}

impl<'t> From<&'t wgpu::Buffer> for Table<'t> {
    fn from(buffer: &'t wgpu::Buffer) -> Self {
        Table { buffer, range: None }
    }
}

impl<'t> Table<'t> {
    /// The range of a buffer that a window names.
    pub(super) fn window(buffer: &'t wgpu::Buffer, window: &Window) -> Table<'t> {
        Table { buffer, range: Some((window.offset, window.size)) }
    }

    fn binding(self) -> wgpu::BindingResource<'t> {
        let Table { buffer, range } = self;
        let Some((offset, size)) = range else { return buffer.as_entire_binding() };
        let size = wgpu::BufferSize::new(size);
        wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset, size })
    }
}

/// Bytes bound to a slot without a window: a vector of the widest type that kernels have.
const UNUSED_SLOT: u64 = 16;

/// The windows that a dispatch binds, slot by slot.
pub(super) struct Slots<'a> {
    windows: &'a [Window],
    pattern: Pattern,
    /// Where another dispatch binds the same.
    bound: Option<&'a wgpu::BindGroup>,
}

/// What every job has besides its own.
pub(super) fn job() -> Job {
    Job { until: NONE, total: NONE, ..Job::zeroed() }
}

impl<'a> Make<'a> {
    pub(crate) fn new(clipper: &'a Clipper, buffers: &'a [wgpu::Buffer], clip: &Clip) -> Make<'a> {
        let (summation, adapt) = (Summation::from(clip.norm), clip.adaptation().rule);
        let scaled = clip.loss_scale.is_some();
        Make {
            clipper,
            buffers,
            summation,
            adapt,
            scaled,
            form: Form::default(),
            advances: false,
            job: job(),
            jobs: Vec::new(),
            wanted: Vec::new(),
        }
    }

    /// Of which norm the sums are that are made next.
    pub(super) fn exchange_summation(&mut self, summation: Summation) -> Summation {
        std::mem::replace(&mut self.summation, summation)
    }

    /// The constants of loss scaling and optimiser.
    pub(crate) fn hyper(&self, hyper: Hyper) -> Result<wgpu::Buffer, PrepareError> {
        self.table("gradclip hyper", &[hyper], hyper, Usage::UNIFORM | Usage::COPY_DST | Usage::COPY_SRC)
    }

    /// A kernel over gradients with the tensors updated with them. `begins` is for accumulation.
    pub(crate) fn fused(
        &mut self,
        kernel: Kernel,
        (dispatch, pattern): &(Dispatch, Pattern),
        begins: bool,
        tables: &[&wgpu::Buffer],
    ) -> Result<Step, PrepareError> {
        let Dispatch { rows, windows, .. } = dispatch;
        let job =
            Job { first_row: rows.start, rows: rows.end - rows.start, begins: begins.into(), ..self.job };
        let slots = Some(Slots { windows, pattern: *pattern, bound: None });
        self.form = self.clipper.forms.of(dispatch);
        self.step(kernel, dispatch.dtype, job, tables, slots, dispatch.grid)
    }

    /// A kernel over the rows or seams of a dispatch.
    pub(super) fn rows(
        &mut self,
        kernel: Kernel,
        dispatch: &Dispatch,
        tables: &[&wgpu::Buffer],
    ) -> Result<Step, PrepareError> {
        let Dispatch { rows, short, seams, .. } = dispatch;
        let limits = &self.clipper.limits;
        let rows = match kernel {
            Kernel::Seams => seams.clone(),
            Kernel::Reduce => rows.start..short.start,
            Kernel::ReduceShort => short.clone(),
            _ => rows.clone(),
        };
        let each = kernel.rows_each(limits.workgroup_size);
        self.form = self.clipper.forms.of(dispatch);
        let mut workgroups = (rows.len() as u64).div_ceil(each.into());
        if kernel.form(self.summation, self.form).stays {
            workgroups = workgroups.min(self.clipper.forms.resident.into());
        }
        let grid = grid(workgroups, limits)?;
        let job = Job { first_row: rows.start, rows: rows.end - rows.start, ..self.job };
        let slots = Some(Slots { windows: &dispatch.windows, pattern: Pattern::apart(1), bound: None });
        self.step(kernel, dispatch.dtype, job, tables, slots, grid)
    }

    /// A kernel of one workgroup over the gradients of a dispatch, bound as `like` binds them.
    pub(super) fn step_over(
        &mut self,
        kernel: Kernel,
        (dispatch, like): (&Dispatch, &Step),
        job: Job,
        tables: &[&wgpu::Buffer],
    ) -> Result<Step, PrepareError> {
        self.form = self.clipper.forms.of(dispatch);
        let bound = like.slots.as_ref();
        let slots = Slots { windows: &dispatch.windows, pattern: Pattern::apart(1), bound };
        self.step(kernel, dispatch.dtype, job, tables, Some(slots), [1, 1])
    }

    /// A kernel that reads gradients from anywhere in these windows.
    pub(super) fn step_reading(
        &mut self,
        kernel: Kernel,
        (dtype, windows): (DType, &[Window]),
        job: Job,
        tables: &[Table<'_>],
        grid: [u32; 2],
    ) -> Result<Step, PrepareError> {
        let slots = Slots { windows, pattern: Pattern::apart(1), bound: None };
        self.step(kernel, dtype, job, tables, Some(slots), grid)
    }

    pub(super) fn step<'t, T: Copy + Into<Table<'t>>>(
        &mut self,
        kernel: Kernel,
        dtype: DType,
        job: Job,
        tables: &[T],
        slots: Option<Slots<'_>>,
        grid: [u32; 2],
    ) -> Result<Step, PrepareError> {
        let Clipper { device, pipelines, limits, .. } = self.clipper;
        let pipeline = pipelines.get(Variant {
            kernel,
            // Others are compiled once for all norms.
            summation: if kernel.has_norm() { self.summation } else { Summation::Two },
            dtype,
            slots: slots.as_ref().map_or(0, |s| self.clipper.slots(s.windows.len(), &s.pattern)),
            pattern: slots.as_ref().map_or(Pattern::default(), |s| s.pattern),
            workgroup_size: limits.workgroup_size,
            adapt: if kernel.has_rule() { self.adapt } else { ADAPT_NONE },
            scaled: kernel.reduces() && self.scaled,
            form: kernel.form(self.summation, self.form),
            advances: kernel.finishes() && self.advances,
        });
        self.wanted.push(pipeline.clone());
        let job = self.table("gradclip job", &[job], job, Usage::UNIFORM | Usage::COPY_DST)?;
        let tables = tables.iter().map(|&table| table.into());
        let bound: Vec<_> = std::iter::once(Table::from(&job)).chain(tables).map(Table::binding).collect();
        let slots = slots.zip(pipeline.slots.as_ref()).map(|(slots, layout)| {
            slots.bound.cloned().unwrap_or_else(|| self.bound(kernel, layout, &slots))
        });
        let tables = bind_group(device, kernel, &pipeline.tables, bound);
        if kernel.leaves_out() {
            self.jobs.push(job);
        }
        Ok(Step { tables, slots, grid, pipeline })
    }

    /// The windows of a dispatch, and something for each slot that the kernel has beyond: ranges of a buffer that no row
    /// names, one of its own a dispatch since dispatches that write to one buffer wait for each other. Where kernels
    /// are made without gradients, all slots have these.
    fn bound(&self, kernel: Kernel, layout: &wgpu::BindGroupLayout, slots: &Slots<'_>) -> wgpu::BindGroup {
        let windows = if self.buffers.is_empty() { &[] } else { slots.windows };
        let slot_count = self.clipper.slots(slots.windows.len(), &slots.pattern) as usize;
        let unused = slot_count * slots.pattern.bindings().max(1) - windows.len();
        let apart = self.clipper.limits.alignment.max(UNUSED_SLOT);
        let buffer: Option<wgpu::Buffer> = (unused > 0)
            .then(|| self.empty::<u8>("gradclip unused slots", unused * apart as usize, Usage::STORAGE));
        let rest = buffer.iter().flat_map(|b| (0..unused as u64).map(move |i| (b, i * apart, UNUSED_SLOT)));
        let used = windows.iter().map(|w| (&self.buffers[w.buffer], w.offset, w.size));
        let resources = used.chain(rest).map(|(buffer, offset, size)| {
            let size = wgpu::BufferSize::new(size);
            wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset, size })
        });
        bind_group(&self.clipper.device, kernel, layout, resources)
    }

    pub(crate) fn empty<T>(&self, label: &str, len: usize, usage: Usage) -> wgpu::Buffer {
        self.clipper.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: (len.max(1) * size_of::<T>()) as u64,
            usage,
            mapped_at_creation: false,
        })
    }

    /// A buffer that holds `rows`, or one `filler` where there are none: nothing empty can be bound.
    pub(crate) fn table<T: NoUninit>(
        &self,
        label: &'static str,
        rows: &[T],
        filler: T,
        usage: Usage,
    ) -> Result<wgpu::Buffer, PrepareError> {
        let filler = [filler];
        let bytes: &[u8] = bytemuck::cast_slice(if rows.is_empty() { &filler } else { rows });
        filled(&self.clipper.device, label, bytes, usage)
    }
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
