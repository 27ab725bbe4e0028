//! The compiled kernels of one device, and the preparation of passes.

use std::collections::HashMap;

use crate::clip::{Clip, Rule};
use crate::error::{PlanError, PrepareError};
use crate::grad::{DType, Grad};
use crate::layout::CHUNK;
use crate::plan::{OTHER_BUFFERS, OTHER_STORAGE, Placement, Plan, PlanLimits};
use crate::segments::TensorInfo;

use super::forms::Forms;
use super::pass::{Pass, Purpose};
use super::pipelines::Pipelines;
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
    /// Partials of a tensor, one a chunk of 16,384 elements, that one workgroup adds up where several share a long one:
    /// at least 1, by default 4,096. Tensors of up to three times as many have one workgroup.
    pub block_partials: Option<u32>,
    /// Results that may be on their way to the host at once, 1 or more, 3 by default. When all are,
    /// [`Pass::read_back`] refuses rather than wait.
    pub read_backs: usize,
}

impl Default for ClipperOptions {
    fn default() -> Self {
        ClipperOptions {
            workgroup_size: None,
            max_slots: None,
            vector_loads: None,
            full_multiply: None,
            resident_workgroups: None,
            block_partials: None,
            read_backs: 3,
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
        limits.teams = forms.vectors;
        limits.block = options.block_partials.unwrap_or(limits.block);
        limits.slots = limits.slots.min(most).clamp(1, MOST_SLOTS);
        Ok(Clipper { device: device.clone(), pipelines: Pipelines::default(), limits, options, forms })
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

    /// Features of `adapter` worth requesting: `TIMESTAMP_QUERY`, with which passes can be timed.
    /// Nothing is required.
    pub fn optional_features(adapter: &wgpu::Adapter) -> wgpu::Features {
        adapter.features() & wgpu::Features::TIMESTAMP_QUERY
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
