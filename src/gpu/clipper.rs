//! The compiled kernels of one device.

use std::sync::Arc;

use crate::error::PlanError;
use crate::layout::CHUNK;
use crate::plan::{OTHER_BUFFERS, OTHER_STORAGE, Pattern, PlanLimits};

use super::forms::Forms;
use super::options::{ClipperOptions, MOST_SLOTS, WORKGROUP};
use super::pipelines::{MadeOn, Pipelines};

/// Software adapters execute every case of the switch over slots: 30 slots take lavapipe 13 times as
/// long an element as 4, and 4.5 s to compile (Mesa 22.3).
const SOFTWARE_SLOTS: u32 = 4;
/// A dispatch costs them less than binding other windows next to one that large.
const SOFTWARE_ALONE: u64 = 64 << 10;
/// Short chunks that are worth another dispatch.
const SOFTWARE_SHORT_FROM: u64 = 8;
/// A workgroup's barriers cost them more than one invocation that adds up a chunk by itself.
const SOFTWARE_LONG_UNIT: u64 = CHUNK as u64;
/// A barrier costs them by the invocation: 256 take lavapipe 1.1 and SwiftShader 1.4 times as long.
const SOFTWARE_WORKGROUP: u32 = 128;

/// Clips on one device: compiles kernels on first use and prepares passes. Clones share what is compiled.
#[derive(Clone, Debug)]
pub struct Clipper {
    pub(super) device: wgpu::Device,
    pub(super) pipelines: Arc<Pipelines>,
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
        options.check(size)?;
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
        let trusted = options.trusted_shaders.unwrap_or(!software);
        let pipelines = Arc::new(Pipelines::new(MadeOn { device: device.clone(), trusted, cache }));
        Ok(Clipper { device: device.clone(), pipelines, limits, options, forms })
    }

    /// Limits to request for a device on `adapter`: wgpu's defaults, with those raised that make
    /// clipping need fewer dispatches (storage buffers a stage, binding and buffer size). A device
    /// without them works too.
    pub fn recommended_limits(adapter: &wgpu::Adapter) -> wgpu::Limits {
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
        // Kernels over gradients alone bind fewer tables besides.
        let most = if pattern.operands() > 1 { self.limits.bindings / bindings } else { self.limits.slots };
        self.forms.slots(windows as u32 / bindings, most.min(self.limits.slots))
    }

    /// The limits that plans of this clipper keep.
    #[doc(hidden)]
    pub fn plan_limits(&self) -> PlanLimits {
        self.limits
    }
}
