//! The compiled kernels of one device, and the preparation of passes.

use std::collections::HashMap;

use crate::clip::{Clip, Rule};
use crate::error::{PlanError, PrepareError};
use crate::grad::{DType, Grad};
use crate::layout::CHUNK;
use crate::plan::{OTHER_BUFFERS, OTHER_STORAGE, Pattern, Placement, Plan, PlanLimits};
use crate::segments::TensorInfo;

use super::forms::Forms;
use super::pass::{Pass, Purpose};
use super::pipelines::{MadeOn, Pipelines};
use super::scope::caught;

/// More slots than this lengthen compilation and save few dispatches more.
const MOST_SLOTS: u32 = 30;
/// Software adapters execute every case of the switch over slots: 30 slots take lavapipe 13 times as
/// long an element as 4, and 4.5 s to compile (Mesa 22.3).
const SOFTWARE_SLOTS: u32 = 4;
/// A dispatch costs them less than binding other windows beside one that large.
const SOFTWARE_ALONE: u64 = 64 << 10;
/// Short chunks that are worth another dispatch.
const SOFTWARE_SHORT_FROM: u64 = 8;
/// A workgroup's barriers cost them more than one invocation that adds up a chunk by itself.
const SOFTWARE_LONG_UNIT: u64 = CHUNK as u64;
const WORKGROUP: u32 = 256;
/// A barrier costs them by the invocation: 256 take lavapipe 1.1 and SwiftShader 1.4 times as long.
const SOFTWARE_WORKGROUP: u32 = 128;

/// Tuning that changes speed, never a bit of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClipperOptions {
    /// Invocations of a workgroup: a power of two from 32 to 256. By default 256, which every
    /// adapter of WebGPU allows, on software adapters 128; given any, these also share workgroups
    /// among short tensors and units as hardware does.
    pub workgroup_size: Option<u32>,
    /// Most gradient buffers that one dispatch binds, 1 to 30. By default as many as the device
    /// allows, on software adapters 4 of less than 64 KiB or 1. Fewer mean more dispatches, more take
    /// longer to compile.
    pub max_slots: Option<u32>,
    /// Whether gradients are read and written by 16 bytes, with many loads in flight, as hardware wants it; not so on
    /// software adapters by default. Needs workgroups of 256.
    pub vector_loads: Option<bool>,
    /// Whether the norm multiplies words of 32 bits, as NVIDIA's hardware does as fast as those of 24, or only the
    /// latter.
    pub full_multiply: Option<bool>,
    /// Workgroups that stay for all chunks of the norm and read the next one ahead; 0, the default, for a workgroup a
    /// chunk.
    pub resident_workgroups: Option<u32>,
    /// Whether kernels are compiled for 1, 2, 4, 8, 16 or 30 gradient buffers, and a dispatch of fewer binds nothing
    /// of importance to the rest: other sets of tensors then rarely need other kernels. Not so on software adapters
    /// by default.
    pub rounded_slots: Option<bool>,
    /// Whether kernels whose indices are proven to be in range are compiled without wgpu's checks of indices and
    /// counters of loops; so by default. In browsers the checks always stay.
    pub trusted_shaders: Option<bool>,
    /// Partials of a tensor, one a chunk of 16,384 elements, that one workgroup adds up where several share a long one:
    /// at least 1, by default 4,096. Tensors of up to three times as many have one workgroup.
    pub block_partials: Option<u32>,
    /// Results that may be on their way to the host at once, 1 or more, 3 by default. When all are,
    /// [`Pass::read_back`] refuses rather than wait.
    pub read_backs: usize,
    /// Whether one workgroup sums and decides a small set by itself, in one dispatch instead of three or more:
    /// see [`Plan::finish`](crate::plan::Plan::finish). By default on hardware that can bind what it takes; software adapters take a second
    /// longer to compile it, and a dispatch costs them little.
    pub finish: Option<bool>,
}

impl Default for ClipperOptions {
    fn default() -> Self {
        ClipperOptions {
            workgroup_size: None,
            max_slots: None,
            vector_loads: None,
            full_multiply: None,
            resident_workgroups: None,
            rounded_slots: None,
            trusted_shaders: None,
            block_partials: None,
            read_backs: 3,
            finish: None,
        }
    }
}

impl ClipperOptions {
    /// Sets the invocations of a workgroup.
    #[must_use]
    pub fn workgroup_size(self, workgroup_size: u32) -> Self {
        ClipperOptions { workgroup_size: Some(workgroup_size), ..self }
    }

    /// Sets the most gradient buffers that one dispatch binds.
    #[must_use]
    pub fn max_slots(self, max_slots: u32) -> Self {
        ClipperOptions { max_slots: Some(max_slots), ..self }
    }

    /// Sets whether gradients are read and written by 16 bytes.
    #[must_use]
    pub fn vector_loads(self, vector_loads: bool) -> Self {
        ClipperOptions { vector_loads: Some(vector_loads), ..self }
    }

    /// Sets whether the norm multiplies words of 32 bits.
    #[must_use]
    pub fn full_multiply(self, full_multiply: bool) -> Self {
        ClipperOptions { full_multiply: Some(full_multiply), ..self }
    }

    /// Sets the workgroups that stay for all chunks of the norm.
    #[must_use]
    pub fn resident_workgroups(self, resident_workgroups: u32) -> Self {
        ClipperOptions { resident_workgroups: Some(resident_workgroups), ..self }
    }

    /// Sets whether one workgroup sums and decides a small set by itself.
    #[must_use]
    pub fn finish(self, finish: bool) -> Self {
        ClipperOptions { finish: Some(finish), ..self }
    }

    /// Sets whether kernels are compiled for rounded numbers of gradient buffers.
    #[must_use]
    pub fn rounded_slots(self, rounded_slots: bool) -> Self {
        ClipperOptions { rounded_slots: Some(rounded_slots), ..self }
    }

    /// Sets whether kernels that need none are compiled without wgpu's checks.
    #[must_use]
    pub fn trusted_shaders(self, trusted_shaders: bool) -> Self {
        ClipperOptions { trusted_shaders: Some(trusted_shaders), ..self }
    }

    /// Sets the partials of a long tensor that one workgroup adds up.
    #[must_use]
    pub fn block_partials(self, block_partials: u32) -> Self {
        ClipperOptions { block_partials: Some(block_partials), ..self }
    }

    /// Sets the number of results that may be on their way to the host at once.
    #[must_use]
    pub fn read_backs(self, read_backs: usize) -> Self {
        ClipperOptions { read_backs, ..self }
    }
}

/// Clips on one device: compiles kernels on first use and prepares passes.
#[derive(Debug)]
pub struct Clipper {
    pub(super) device: wgpu::Device,
    pub(super) pipelines: Pipelines,
    pub(super) limits: PlanLimits,
    pub(super) options: ClipperOptions,
    pub(super) forms: Forms,
}

impl Clipper {
    /// For a device with any limits at or above [`wgpu::Limits::default`] and no particular features.
    ///
    /// # Errors
    ///
    /// [`PlanError::Limit`] where the device cannot bind even one gradient buffer or run a
    /// workgroup.
    pub fn new(device: &wgpu::Device) -> Result<Clipper, PlanError> {
        Clipper::with_options(device, ClipperOptions::default())
    }

    /// As [`Clipper::new`], with other tuning.
    ///
    /// # Errors
    ///
    /// [`PlanError::Option`] also for an option out of its range.
    pub fn with_options(device: &wgpu::Device, options: ClipperOptions) -> Result<Clipper, PlanError> {
        Clipper::made(device, options, None)
    }

    /// As [`Clipper::with_options`], for a device with [`wgpu::Features::PIPELINE_CACHE`]: compiled kernels come from
    /// `cache` where it has them, and go there. An application keeps its bytes from run to run, or shares it with
    /// pipelines of its own.
    ///
    /// ```no_run
    /// use gradclip::{Clipper, ClipperOptions, wgpu};
    ///
    /// # fn run(device: &wgpu::Device, file: &std::path::Path) -> Result<(), Box<dyn std::error::Error>> {
    /// let data = std::fs::read(file).ok();
    /// let descriptor =
    ///     wgpu::PipelineCacheDescriptor { label: None, data: data.as_deref(), fallback: true };
    /// // SAFETY: nobody else writes to that file.
    /// let cache = unsafe { device.create_pipeline_cache(&descriptor) };
    /// let clipper = Clipper::with_cache(device, ClipperOptions::default(), &cache)?;
    /// // Once all is prepared:
    /// if let Some(data) = cache.get_data() {
    ///     std::fs::write(file, data)?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Clipper::with_options`]. A cache of another device is an error of the first preparation.
    pub fn with_cache(
        device: &wgpu::Device,
        options: ClipperOptions,
        cache: &wgpu::PipelineCache,
    ) -> Result<Clipper, PlanError> {
        Clipper::made(device, options, Some(cache.clone()))
    }

    fn made(
        device: &wgpu::Device,
        options: ClipperOptions,
        cache: Option<wgpu::PipelineCache>,
    ) -> Result<Clipper, PlanError> {
        let info = device.adapter_info();
        let software = info.device_type == wgpu::DeviceType::Cpu;
        let narrow = software && options.vector_loads != Some(true);
        let size = options.workgroup_size.unwrap_or(if narrow { SOFTWARE_WORKGROUP } else { WORKGROUP });
        if !size.is_power_of_two() || !(32..=256).contains(&size) {
            let (option, required) = ("workgroup_size", "a power of two from 32 to 256");
            return Err(PlanError::Option { option, required, given: size.into() });
        }
        if let Some(given) = options.max_slots.filter(|slots| !(1..=MOST_SLOTS).contains(slots)) {
            let (option, required) = ("max_slots", "1 to 30");
            return Err(PlanError::Option { option, required, given: given.into() });
        }
        if options.vector_loads == Some(true) && size != WORKGROUP {
            let (option, required) = ("workgroup_size", "256 for loads by 16 bytes");
            return Err(PlanError::Option { option, required, given: size.into() });
        }
        if options.block_partials == Some(0) {
            return Err(PlanError::Option { option: "block_partials", required: "1 or more", given: 0 });
        }
        if options.read_backs == 0 {
            return Err(PlanError::Option { option: "read_backs", required: "1 or more", given: 0 });
        }
        let mut limits = PlanLimits::new(&device.limits(), size)?;
        let most = options.max_slots.unwrap_or(if software { SOFTWARE_SLOTS } else { MOST_SLOTS });
        if software && options.max_slots.is_none() {
            limits.alone_from = SOFTWARE_ALONE;
        }
        if software && options.workgroup_size.is_none() {
            limits.long_unit = SOFTWARE_LONG_UNIT;
            limits.short_from = SOFTWARE_SHORT_FROM;
        }
        let forms = Forms::new(&info, &options, size);
        limits.vectors = forms.vectors;
        limits.finish = options.finish.unwrap_or(!software);
        limits.teams = forms.vectors;
        limits.block = options.block_partials.unwrap_or(limits.block);
        limits.slots = limits.slots.min(most).clamp(1, MOST_SLOTS);
        let trusted = options.trusted_shaders.unwrap_or(true);
        let pipelines = Pipelines::new(MadeOn { device: device.clone(), trusted, cache });
        Ok(Clipper { device: device.clone(), pipelines, limits, options, forms })
    }

    /// Limits to request for a device on `adapter`: wgpu's defaults, with those raised that make
    /// clipping need fewer dispatches (storage buffers a stage, binding and buffer size). A device
    /// without them works too.
    pub fn required_limits(adapter: &wgpu::Adapter) -> wgpu::Limits {
        let best = adapter.limits();
        wgpu::Limits {
            max_storage_buffers_per_shader_stage: best
                .max_storage_buffers_per_shader_stage
                .min(MOST_SLOTS + OTHER_STORAGE),
            max_buffers_and_acceleration_structures_per_shader_stage: best
                .max_buffers_and_acceleration_structures_per_shader_stage
                .min(MOST_SLOTS + OTHER_BUFFERS),
            max_storage_buffer_binding_size: best.max_storage_buffer_binding_size,
            max_buffer_size: best.max_buffer_size,
            ..wgpu::Limits::default().or_worse_values_from(&best)
        }
    }

    /// Features of `adapter` worth requesting: `TIMESTAMP_QUERY`, with which passes can be timed, and `PIPELINE_CACHE`,
    /// with which compiled kernels can be kept ([`Clipper::with_cache`]). Nothing is required.
    pub fn optional_features(adapter: &wgpu::Adapter) -> wgpu::Features {
        adapter.features() & (wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::PIPELINE_CACHE)
    }

    /// Number of kernels compiled so far.
    pub fn kernel_count(&self) -> usize {
        self.pipelines.compiled()
    }

    /// Slots of the kernel for a dispatch over so many windows.
    pub(super) fn slots(&self, windows: usize, pattern: &Pattern) -> u32 {
        let bindings = pattern.bindings().max(1) as u32;
        // Kernels over gradients alone have fewer tables beside them.
        let most = if pattern.roles() > 1 { self.limits.bindings / bindings } else { self.limits.slots };
        self.forms.slots(windows as u32 / bindings, most.min(self.limits.slots))
    }

    /// The limits that plans of this clipper keep.
    pub fn plan_limits(&self) -> PlanLimits {
        self.limits
    }

    /// Prepares the clipping of `grads`, to be recorded as often as wanted. Allocates scratch
    /// buffers and bind groups and compiles what is not compiled yet, for which it waits; submits nothing
    /// and waits for nothing that runs on the device.
    ///
    /// Tensors without elements, and no tensors at all, are fine: the norm is 0.
    ///
    /// # Errors
    ///
    /// A clip that does not validate; tensors without the shape or parameter that it needs; a buffer
    /// without usage `STORAGE`; ranges that are unaligned, overlap or leave their buffer; more than the
    /// device's limits can hold; a buffer of another device; memory that ran out; a shader that the
    /// driver refuses.
    pub fn prepare(&self, grads: &[Grad], clip: &Clip) -> Result<Pass, PrepareError> {
        self.prepared(grads, clip, Purpose::InPlace, None)
    }

    /// As [`Clipper::prepare`] for other buffers, or other tensors: the new pass goes on where
    /// `previous` is, counting its steps and with the history of its adaptive thresholds. Both share
    /// them on the device from here on; nothing is copied.
    ///
    /// # Errors
    ///
    /// As [`Clipper::prepare`], and [`ClipError::State`](crate::ClipError::State) where the adaptive threshold or the number of
    /// limits differs.
    pub fn prepare_after(&self, previous: &Pass, grads: &[Grad], clip: &Clip) -> Result<Pass, PrepareError> {
        self.prepared(grads, clip, Purpose::InPlace, Some(previous))
    }

    /// Compiles what [`Clipper::prepare`] will need for `tensors` with `clip`, so that it compiles nothing: while
    /// weights are loaded, say, from another thread. Nothing needs to lie on the device yet.
    ///
    /// Kernels depend on how many buffers there are, on element types and on whether there are large, short and
    /// odd tensors among those, not on their exact sizes: [`ClipperOptions::rounded_slots`].
    ///
    /// ```no_run
    /// use gradclip::{Clip, Clipper, DType, plan::Placement};
    ///
    /// # fn run(device: &gradclip::wgpu::Device) -> Result<(), Box<dyn std::error::Error>> {
    /// let clipper = Clipper::new(device)?;
    /// // A model of 148 tensors of bf16, each in a buffer of its own.
    /// let tensor = |buffer| Placement {
    ///     buffer,
    ///     buffer_size: 2 * 768 * 768,
    ///     elements: 768 * 768,
    ///     dtype: DType::Bf16,
    ///     ..Placement::default()
    /// };
    /// let tensors: Vec<Placement> = (0..148).map(tensor).collect();
    /// std::thread::scope(|scope| {
    ///     let warm = scope.spawn(|| clipper.warm_up(&tensors, &Clip::global_norm(1.0)));
    ///     // ... load weights ...
    ///     warm.join().expect("no panic")
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Clipper::prepare`], but for buffers.
    pub fn warm_up(&self, tensors: &[Placement], clip: &Clip) -> Result<(), PrepareError> {
        let plan = Plan::new(tensors, clip, &self.limits)?;
        caught(&self.device, "preparing kernels", || Pass::warm_up(self, &plan, clip))?
    }

    pub(super) fn prepared(
        &self,
        grads: &[Grad],
        clip: &Clip,
        purpose: Purpose,
        previous: Option<&Pass>,
    ) -> Result<Pass, PrepareError> {
        clip.validate()?;
        let agc = matches!(clip.rule, Rule::Agc { .. });
        let infos: Vec<TensorInfo> = grads.iter().map(Grad::info).collect();
        purpose.check(&infos, clip)?;
        for (grad, info) in grads.iter().zip(&infos).filter(|(g, _)| g.elements() > 0) {
            let parameter = grad.parameter.as_ref().filter(|_| agc && !info.excluded()).map(|p| &p.buffer);
            std::iter::once(&grad.buffer).chain(parameter).try_for_each(|b| check_usage(grad, b))?;
        }
        let (placements, buffers) = placements(grads, agc);
        let plan = Plan::new(&placements, clip, &self.limits)?;
        let memory = previous.map(|p| p.memory_for(clip, plan.limit_count())).transpose()?;
        caught(&self.device, "preparing buffers and bind groups", || {
            Pass::new(self, grads, &buffers, plan, clip, (purpose, memory))
        })?
    }
}

/// The distinct buffers, numbered in the order in which they are met.
#[derive(Default)]
pub(super) struct Buffers {
    numbers: HashMap<wgpu::Buffer, usize>,
    pub(super) all: Vec<wgpu::Buffer>,
}

impl Buffers {
    fn number(&mut self, buffer: &wgpu::Buffer) -> usize {
        *self.numbers.entry(buffer.clone()).or_insert_with(|| {
            self.all.push(buffer.clone());
            self.all.len() - 1
        })
    }

    /// Where a gradient lies.
    pub(super) fn gradient(&mut self, grad: &Grad) -> Placement {
        Placement {
            name: grad.name.clone(),
            buffer: self.number(&grad.buffer),
            buffer_size: grad.buffer.size(),
            offset: grad.offset,
            elements: grad.elements(),
            dtype: grad.dtype,
            shape: grad.shape.clone(),
            group: grad.group.clone(),
            parameter: None,
        }
    }

    /// Where something in the shape of a gradient lies.
    pub(super) fn beside(
        &mut self,
        grad: &Grad,
        what: &str,
        dtype: DType,
        (buffer, offset): (&wgpu::Buffer, u64),
    ) -> Placement {
        Placement {
            name: format!("{} ({what})", grad.name),
            buffer: self.number(buffer),
            buffer_size: buffer.size(),
            offset,
            dtype,
            ..self.gradient(grad)
        }
    }
}

/// Where each tensor lies, and the distinct buffers.
fn placements(grads: &[Grad], parameters: bool) -> (Vec<Placement>, Vec<wgpu::Buffer>) {
    let mut buffers = Buffers::default();
    let placements = grads
        .iter()
        .map(|grad| {
            let gradient = buffers.gradient(grad);
            let parameter = grad
                .parameter
                .as_ref()
                .filter(|_| parameters)
                .map(|p| Box::new(buffers.beside(grad, "parameter", p.dtype, (&p.buffer, p.offset))));
            Placement { parameter, ..gradient }
        })
        .collect();
    (placements, buffers.all)
}

/// That a buffer can be bound.
pub(super) fn check_usage(grad: &Grad, buffer: &wgpu::Buffer) -> Result<(), PrepareError> {
    if buffer.usage().contains(wgpu::BufferUsages::STORAGE) {
        return Ok(());
    }
    Err(PrepareError::Usage { tensor: grad.name.clone(), given: buffer.usage() })
}
