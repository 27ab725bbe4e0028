//! What can be tuned.

use crate::error::PlanError;

/// More slots than this lengthen compilation and save few dispatches more.
pub(super) const MOST_SLOTS: u32 = 30;
pub(super) const WORKGROUP: u32 = 256;

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
    /// Whether the L2 norm multiplies words of 32 bits, as NVIDIA's hardware does as fast as those of 24, or only the
    /// latter. Without `vector_loads` it changes nothing.
    pub full_multiply: Option<bool>,
    /// Workgroups that stay for all chunks of the norm and read the next one ahead; 0, the default, for a workgroup a
    /// chunk. It goes for chunks that have a workgroup each, under norms of type 1, 2 and infinity, with `vector_loads`.
    pub resident_workgroups: Option<u32>,
    /// Whether kernels are compiled for 1, 2, 4, 8, 16 or 30 gradient buffers, and a dispatch of fewer binds nothing
    /// of importance to the rest: other sets of tensors then rarely need other kernels. Not so on software adapters
    /// by default.
    pub rounded_slots: Option<bool>,
    /// Whether kernels whose indices are proven to be in range are compiled without wgpu's checks of indices and
    /// counters of loops; so by default, but on software adapters, where lavapipe's norm takes longer without (a fifth, where it was
    /// measured). In browsers the checks always stay.
    pub trusted_shaders: Option<bool>,
    /// Partials of a tensor, one a chunk of 16,384 elements, that one workgroup adds up where several share a long one:
    /// at least 1, by default 4,096. Tensors of up to three times as many have one workgroup.
    pub block_partials: Option<u32>,
    /// Results that may be on their way to the host at once, 1 or more, 3 by default. When all are,
    /// [`Pass::read_back`](crate::Pass::read_back) refuses rather than wait.
    pub read_backs: usize,
    /// Whether one workgroup sums and decides a small set by itself, in one dispatch instead of two or more: see
    /// [`Pass::dispatch_count`](crate::Pass::dispatch_count). By default on hardware that can bind what it takes; software adapters take
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

    /// That each is in its range, with workgroups of this size.
    pub(super) fn check(&self, size: u32) -> Result<(), PlanError> {
        if !size.is_power_of_two() || !(32..=256).contains(&size) {
            let (option, required) = ("workgroup_size", "a power of two from 32 to 256");
            return Err(PlanError::Option { option, required, given: size.into() });
        }
        if let Some(given) = self.max_slots.filter(|slots| !(1..=MOST_SLOTS).contains(slots)) {
            let (option, required) = ("max_slots", "1 to 30");
            return Err(PlanError::Option { option, required, given: given.into() });
        }
        if self.vector_loads == Some(true) && size != WORKGROUP {
            let (option, required) = ("workgroup_size", "256 for loads by 16 bytes");
            return Err(PlanError::Option { option, required, given: size.into() });
        }
        if self.block_partials == Some(0) {
            return Err(PlanError::Option { option: "block_partials", required: "1 or more", given: 0 });
        }
        if self.read_backs == 0 {
            return Err(PlanError::Option { option: "read_backs", required: "1 or more", given: 0 });
        }
        Ok(())
    }
}
