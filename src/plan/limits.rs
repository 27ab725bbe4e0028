//! What a device allows.

use crate::clip::Summation;
use crate::error::PlanError;
use crate::layout::TEAM;

/// Partials that one block adds up.
pub(crate) const BLOCK: u32 = 4096;

/// The limits of a device that a plan depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanLimits {
    /// Windows that one dispatch can bind, at least 1.
    pub slots: u32,
    /// Windows that one dispatch over gradients and the tensors updated with them can bind; a slot of it takes
    /// several.
    pub bindings: u32,
    /// Bytes from which a window has a dispatch of its own, although others would have room in it.
    pub alone_from: u64,
    /// Chunks of at most 1,024 elements of a dispatch from which they have one of their own, in which
    /// several share a workgroup.
    pub short_from: u64,
    /// Elements from which a unit's chunks take a workgroup each; of shorter units, an invocation does. It is
    /// 256 for units too few to fill a workgroup, and under norms of any p.
    pub long_unit: u64,
    /// Whether chunks of whole vectors of 16 bytes have dispatches of their own, so that kernels read and write
    /// these.
    pub vectors: bool,
    /// Whether [`TEAM`] invocations share a unit of at least so many elements, unless there are very many.
    pub teams: bool,
    /// Partials of a whole tensor that one workgroup adds up, where that makes at least four blocks.
    pub block: u32,
    /// Largest binding in bytes.
    pub max_binding: u64,
    /// Alignment of a binding's offset in bytes.
    pub alignment: u64,
    /// Workgroups that one dimension of a dispatch can have.
    pub max_workgroups: u32,
    /// Invocations of a workgroup.
    pub workgroup_size: u32,
    /// Storage buffers that a stage can bind.
    pub storage: u32,
    /// Buffers of any kind that a stage can bind.
    pub buffers: u32,
    /// Whether one workgroup sums and decides small sets by itself: see [`Plan::finish`](super::Plan::finish).
    pub finish: bool,
}

/// A workgroup reads side by side what so many invocations would read far apart.
pub(crate) const LONG_UNIT: u64 = 256;
/// About as many workgroups as run at once: what fewer cost is hidden behind others. So many of those that take several
/// short chunks each have to be left.
const SHORT_FROM: u64 = 1024;
/// Storage buffers of the chunk kernels besides the slots.
pub(crate) const OTHER_STORAGE: u32 = 2;
/// Buffers of any kind of the chunk kernels besides the slots.
pub(crate) const OTHER_BUFFERS: u32 = 4;
/// Storage buffers of the kernel that has most of them.
pub(crate) const MOST_STORAGE: u32 = 6;
/// Uniform buffers of the kernel that has most of them.
const MOST_UNIFORM: u32 = 3;
/// Storage buffers of the fused kernels besides the slots.
pub(super) const FUSED_STORAGE: u32 = 3;

impl PlanLimits {
    /// What a device with these limits allows.
    ///
    /// # Errors
    ///
    /// [`PlanError::Limit`] where not even one slot fits.
    pub fn new(limits: &wgpu::Limits, workgroup_size: u32) -> Result<PlanLimits, PlanError> {
        let storage = limits.max_storage_buffers_per_shader_stage;
        let buffers = limits.max_buffers_and_acceleration_structures_per_shader_stage;
        let least = [
            ("max_storage_buffers_per_shader_stage", u64::from(MOST_STORAGE), u64::from(storage)),
            (
                "max_buffers_and_acceleration_structures_per_shader_stage",
                u64::from(MOST_STORAGE + MOST_UNIFORM),
                u64::from(buffers),
            ),
            (
                "max_compute_invocations_per_workgroup",
                u64::from(workgroup_size),
                u64::from(
                    limits.max_compute_invocations_per_workgroup.min(limits.max_compute_workgroup_size_x),
                ),
            ),
            (
                "max_compute_workgroups_per_dimension",
                1,
                u64::from(limits.max_compute_workgroups_per_dimension),
            ),
            ("max_storage_buffer_binding_size", 1 << 17, limits.max_storage_buffer_binding_size),
        ];
        for (limit, required, given) in least {
            if given < required {
                return Err(PlanError::Limit { limit, required, given });
            }
        }
        Ok(PlanLimits {
            slots: (storage - OTHER_STORAGE).min(buffers - OTHER_BUFFERS),
            bindings: (storage - FUSED_STORAGE).min(buffers - FUSED_STORAGE - MOST_UNIFORM),
            alone_from: u64::MAX,
            short_from: SHORT_FROM * u64::from(workgroup_size / TEAM),
            long_unit: LONG_UNIT,
            vectors: false,
            teams: false,
            block: BLOCK,
            max_binding: limits.max_storage_buffer_binding_size,
            alignment: u64::from(limits.min_storage_buffer_offset_alignment).max(4),
            max_workgroups: limits.max_compute_workgroups_per_dimension,
            workgroup_size,
            storage,
            buffers,
            finish: true,
        })
    }

    /// Sums for any p are rounded: there is no kernel for short chunks nor for teams, and no invocation adds up a long unit.
    pub(super) fn for_norm(&self, summation: Summation) -> PlanLimits {
        match summation {
            Summation::P(_) => PlanLimits {
                short_from: u64::MAX,
                long_unit: self.long_unit.min(LONG_UNIT),
                teams: false,
                ..*self
            },
            _ => *self,
        }
    }
}
