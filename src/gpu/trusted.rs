//! Shader modules, with wgpu's own checks or without.

use crate::kernels::Variant;

/// Compiles the text of a kernel, without wgpu's counters of loops and checks of indices if it is `trusted` and the
/// kernel is one of those that need none.
///
/// # Why nothing is lost
///
/// Indices follow from the workgroup, the invocation, the job and rows of tables. Jobs and tables are written by this
/// library alone: their buffers leave it nowhere. What others may write (gradients and what lies next to them, partials,
/// sums, outcomes, tally, progress) is compared, counted, shifted and multiplied by these kernels, and is no part of an
/// index or of a loop's bound. `tests/in_range.rs`, `tests/plan.rs` and `tests/fused_plan.rs` walk the indices of the
/// rows of random plans:
///
/// - Rows: invocations with an index from `job.rows` or `job.runs` on return or take the last row; the job's numbers are
///   those of the table's rows.
/// - Gradients: a row's elements lie within its window, and so do the words and vectors that hold them. Invocations past
///   the end of a chunk take its last element. A window is no larger than 2 GiB, so that no sum of 32 bits wraps.
/// - Slots: every row names one that has a window; a `switch` does nothing with others.
/// - Partials, sums, outcomes: rows and runs end within the buffers, which are as long as the plan says.
/// - Arrays of a workgroup or an invocation are indexed by the lane, the team or a counter below their length.
/// - Loops go from a first element to an end by a fixed width, halve a number, or clear a bit a turn.
///
/// Kernels that decide (thresholds, coefficients, the step's end) keep the checks: each takes one short dispatch, and
/// histories that others may restore decide there how far to read.
pub(super) fn module(device: &wgpu::Device, variant: &Variant, trusted: bool) -> wgpu::ShaderModule {
    let descriptor = wgpu::ShaderModuleDescriptor {
        label: Some(variant.kernel.stem()),
        source: wgpu::ShaderSource::Wgsl(variant.source().into()),
    };
    if !(trusted && variant.needs_no_checks()) {
        return device.create_shader_module(descriptor);
    }
    // Checks of divisors stay: they cost little.
    let checks = wgpu::ShaderRuntimeChecks {
        bounds_checks: false,
        force_loop_bounding: false,
        ..wgpu::ShaderRuntimeChecks::checked()
    };
    // SAFETY: by the argument above every index is in range and every loop ends.
    unsafe { device.create_shader_module_trusted(descriptor, checks) }
}
