//! What a device binds, for plans without one.

use gradclip::plan::PlanLimits;

/// A device with wgpu's default limits, whose kernels read word by word.
pub fn limits() -> PlanLimits {
    PlanLimits {
        slots: 6,
        bindings: 5,
        alone_from: u64::MAX,
        long_unit: 256,
        short_from: 1024,
        vectors: false,
        teams: false,
        block: 4096,
        max_binding: 128 << 20,
        alignment: 256,
        max_workgroups: 65_535,
        workgroup_size: 256,
        storage: 10,
        buffers: 24,
        finish: true,
    }
}
