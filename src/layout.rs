//! The constants and records that Rust and WGSL share.
//!
//! Constants are written here once and generated into the shader text by [`wgsl_constants`]. The
//! records are declared again in `shaders/shared/rows.wgsl` and `records.wgsl`; `tests/layout.rs` compares every
//! offset with the one that naga computes from the WGSL.

mod constants;
mod memory;
mod private;
mod sparse;
mod step;

use bytemuck::{Pod, Zeroable};

pub use constants::*;
pub(crate) use constants::{declarations, record_constants};
pub use memory::*;
pub use private::*;
pub use sparse::*;
pub use step::*;

/// One chunk: where it lies and where its partial goes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct ChunkRow {
    /// First element, counted in elements of the slot's window.
    pub start: u32,
    /// Number of elements in the low [`LEN_BITS`] bits, slot above.
    pub slot_len: u32,
    /// Index of the chunk's [`Partial`].
    pub partial: u32,
    /// Segment whose [`Outcome`] applies.
    pub segment: u32,
}

/// Up to a workgroup of neighbouring units, one invocation or a team each: where one chunk of each lies and
/// where its partial goes. Element `i` of unit `u` lies at `base + (u / kept) * kept_high + (u % kept)
/// * kept_low + (i / reduced) * reduced_high + (i % reduced) * reduced_low`, modulo 2^32.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct UnitRow {
    /// The tensor's first element, counted in elements of the slot's window; before the window's own
    /// first where it is negative as an `i32`.
    pub base: u32,
    /// Slot of the window.
    pub slot: u32,
    /// First unit.
    pub first_unit: u32,
    /// Number of units.
    pub units: u32,
    /// First element of the chunk in each unit.
    pub first: u32,
    /// Elements of the chunk in each unit.
    pub len: u32,
    /// Index of the [`Partial`] of the first unit; the others follow.
    pub partial: u32,
    /// Segment of the first unit; the others follow.
    pub segment: u32,
    /// See above.
    pub kept: u32,
    /// See above.
    pub kept_high: u32,
    /// See above.
    pub kept_low: u32,
    /// See above.
    pub reduced: u32,
    /// See above.
    pub reduced_high: u32,
    /// See above.
    pub reduced_low: u32,
}

/// A run of neighbouring elements of a tensor that is cut into units. Element `e` of the tensor
/// belongs to segment `segment + (e / low) % kept + (e / high) % outer * kept`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct MapRow {
    /// First element, counted in elements of the slot's window.
    pub start: u32,
    /// Number of elements in the low [`LEN_BITS`] bits, slot above.
    pub slot_len: u32,
    /// The same first element, counted in the tensor.
    pub first: u32,
    /// First segment of the tensor.
    pub segment: u32,
    /// See above.
    pub low: u32,
    /// See above.
    pub kept: u32,
    /// See above.
    pub high: u32,
    /// See above.
    pub outer: u32,
}

/// A word that two halves of different chunks share, or one half of ours and one of nobody's.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct SeamRow {
    /// Slot of the window.
    pub slot: u32,
    /// Index of the word in it.
    pub word: u32,
    /// Segment of the low half, or [`NONE`].
    pub low: u32,
    /// Segment of the high half, or [`NONE`].
    pub high: u32,
}

/// What one chunk adds up to: `mantissa * unit(exponent)`, see [`crate::cpu`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Partial {
    /// Low half of the 64-bit mantissa.
    pub lo: u32,
    /// High half of the 64-bit mantissa.
    pub hi: u32,
    /// Largest exponent field of the chunk's finite elements, at least 1.
    pub exponent: u32,
    /// Number of non-finite elements; the top bit says that one of them is NaN.
    pub non_finite: u32,
}

/// What a tensor or a segment adds up to. For the L2 norm `mantissa * 2^(2 * exponent - 308)` is
/// the sum of squares, for the L1 norm `mantissa * 2^(exponent - 182)` the sum of magnitudes; for
/// the infinity norm `exponent` holds the largest magnitude's bits.
///
/// Sums of several machines may be combined by the same rule: align both mantissas to the larger
/// exponent, two bits a step for L2 and one for L1, then add.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Sum {
    /// 96-bit mantissa, least significant word first.
    pub mantissa: [u32; 3],
    /// Largest exponent field of the finite elements; 0 for an empty tensor.
    pub exponent: u32,
    /// Number of non-finite elements, saturating at `u32::MAX`.
    pub non_finite: u32,
    /// 1 if one of them is NaN.
    pub nan: u32,
    /// Index of the first tensor with a non-finite element, or [`NONE`].
    pub first: u32,
    /// Always 0.
    pub pad: u32,
}

/// A run of items that add up to one [`Sum`], or up to a workgroup of runs side by side: lane `l`
/// adds the items `first + l + k * stride` to the sums `target + l` and `segment + l`. A block of a longer run is aligned
/// to the largest exponent of all of that, so that blocks add up to its sum to the bit.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Run {
    /// Index of the first item.
    pub first: u32,
    /// Number of items; 0 adds up to zero.
    pub count: u32,
    /// Index of the [`Sum`] written, or [`NONE`].
    pub target: u32,
    /// Distance of the items.
    pub stride: u32,
    /// Number of runs.
    pub lanes: u32,
    /// Index of the tensor, for [`Sum::first`] of sums of chunks.
    pub tensor: u32,
    /// Segment whose sum this is by itself, or [`NONE`].
    pub segment: u32,
    /// Items before the first whose exponents count too.
    pub before: u32,
    /// Items after the last whose exponents count too.
    pub after: u32,
}

/// Up to a workgroup of segments whose outcomes are decided alike.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct SegmentRow {
    /// First segment.
    pub first: u32,
    /// Number of segments.
    pub count: u32,
    /// Limit of the first segment: its [`Setting`] and [`State`].
    pub limit: u32,
    /// 1 where each segment has a limit of its own, 0 where they share one.
    pub step: u32,
    /// Segment that holds the parameters of the first segment, or [`NONE`].
    pub parameters: u32,
}

/// What a dispatch works on.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Job {
    /// Short runs at the beginning of a combining dispatch.
    pub serial: u32,
    /// Runs of a combining dispatch, rows of a deciding one.
    pub runs: u32,
    /// First row of the dispatch (chunk kernels).
    pub first_row: u32,
    /// Rows of the dispatch (chunk kernels).
    pub rows: u32,
    /// Segments from this one on are left out: they count for nothing and keep every bit.
    pub until: u32,
    /// Bits of the unscale factor of the clip, that of a loss scale not included.
    pub unscale: u32,
    /// Bits of the largest magnitude that is still finite when it is multiplied by that factor.
    pub largest: u32,
    /// The segment of the whole set, or [`NONE`].
    pub total: u32,
    /// Number of limits that adapt.
    pub adaptive: u32,
    /// 1 where the deciding kernel also begins the step, or an accumulating one the sum.
    pub begins: u32,
    /// Segments from this one on are of parameters, which are not unscaled.
    pub parameters: u32,
    /// 1 where no dispatch over gradients follows, so that nothing is limited or unscaled whatever was set.
    pub measures: u32,
    /// What a finishing dispatch does: the `STAGE_` constants.
    pub stages: u32,
    /// Short runs at the beginning of its second part, that of segments.
    pub segment_serial: u32,
    /// Runs of that part.
    pub segment_runs: u32,
    /// Segments that it decides.
    pub decided: u32,
}

/// The words of a [`Job`] that setters of a pass change, which lie side by side.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub(crate) struct JobSetting {
    pub(crate) until: u32,
    pub(crate) unscale: u32,
    pub(crate) largest: u32,
}

/// What is asked of one limit.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct Setting {
    /// Largest norm allowed, at least 0; infinity only measures.
    pub threshold: f32,
    /// Power of two that the threshold is multiplied by.
    pub lift: i32,
    /// Factor that gradients are multiplied by before anything else; 1 for none.
    pub unscale: f32,
    /// Added to the norm in the quotient.
    pub eps: f32,
    /// Least norm that parameters are taken to have.
    pub floor: f32,
    /// One of the `POLICY_` constants.
    pub policy: u32,
    /// One of the `RULE_` constants.
    pub rule: u32,
    /// 1 where the limit on the whole set applies too.
    pub total: u32,
    /// 1 where the norm of the result must not exceed the threshold by any rounding.
    pub below: u32,
    /// What smaller norms are raised to; 0 for none.
    pub raised: f32,
}

/// The result for one segment, 48 bytes. An optimiser may bind the buffer and read it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct Outcome {
    /// Norm before clipping, of the unscaled gradients; infinity when it exceeds `f32::MAX`.
    pub norm: f32,
    /// The same norm as `norm_mantissa * 2^norm_exponent`, also above `f32::MAX`.
    pub norm_mantissa: u32,
    /// See `norm_mantissa`.
    pub norm_exponent: i32,
    /// The largest norm that was allowed; infinity also when it exceeds `f32::MAX`.
    pub threshold: f32,
    /// threshold / norm where the norm exceeds the threshold, else exactly 1. 1 also where no single
    /// factor tells what happens: under [`CLAMP`] and [`SIGN`].
    pub coefficient: f32,
    /// What elements are multiplied by: coefficient times unscale factor. Else see `action`.
    pub scale: f32,
    /// 1, or a power of two that is to be multiplied twice more, when the product of coefficient and
    /// unscale factor lies outside the range of normal `f32` and `scale` alone could not hold it.
    pub rescale: f32,
    /// What the apply pass does: [`KEEP`], [`MULTIPLY`], [`FILL`], [`CLAMP`] or [`SIGN`], the
    /// middle ones perhaps with [`SANITIZE`] and [`TOWARD_ZERO`].
    pub action: u32,
    /// [`CLIPPED`], [`NON_FINITE`], [`NAN`], [`SKIPPED`], [`BY_TOTAL`],
    /// [`LEFT_OUT`].
    pub flags: u32,
    /// Number of non-finite elements, saturating at `u32::MAX`.
    pub non_finite: u32,
    /// Index of the first tensor with one, or [`NONE`].
    pub first_non_finite: u32,
    /// The unscale factor that was used.
    pub unscale: f32,
}
