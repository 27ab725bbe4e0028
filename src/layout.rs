//! The constants and records that Rust and WGSL share.
//!
//! Constants are written here once and generated into the shader text by [`wgsl_constants`]. The
//! records are declared again in `shaders/shared/records.wgsl`; `tests/layout.rs` compares every
//! offset with the one that naga computes from the WGSL.

use bytemuck::{Pod, Zeroable};

/// Elements of a column: the block that is summed in units of its own largest exponent.
pub const ROWS: u32 = 16;
/// Columns of a chunk. Element `r * COLUMNS + c` of a chunk is row `r` of column `c`.
pub const COLUMNS: u32 = 1024;
/// Elements of a chunk: the work of one workgroup. Chunks are counted from each tensor's own start.
pub const CHUNK: u32 = ROWS * COLUMNS;
/// Runs of at most this many items are added up by one invocation, longer ones by one workgroup.
pub const SERIAL_RUN: u32 = 8;
/// Bits that a [`Sum`] has below those of a [`Partial`].
pub const GUARD: u32 = 8;
/// Chunks of a set: as many as 96 bits hold the sum of.
pub const MOST_CHUNKS: u64 = 1 << (96 - 62 - GUARD);
/// The value of [`Sum::first`] when no tensor holds a non-finite element.
pub const NONE: u32 = u32::MAX;

/// Bit of [`Outcome::flags`]: the norm exceeded the threshold.
pub const CLIPPED: u32 = 1;
/// Bit of [`Outcome::flags`]: the segment holds an infinite or NaN element.
pub const NON_FINITE: u32 = 2;
/// Bit of [`Outcome::flags`]: the segment holds a NaN element.
pub const NAN: u32 = 4;
/// Bit of [`Outcome::flags`]: the gradients were left alone because of a non-finite element, and an
/// optimiser should leave parameters and state alone too.
pub const SKIPPED: u32 = 8;

/// [`Outcome::action`]: gradients keep every bit.
pub const KEEP: u32 = 0;
/// [`Outcome::action`]: every element is multiplied by `scale * rescale * rescale`.
pub const MULTIPLY: u32 = 1;
/// [`Outcome::action`]: every element becomes `scale`.
pub const FILL: u32 = 2;
/// [`Outcome::action`]: as [`MULTIPLY`], but non-finite elements become 0.
pub const SANITIZE: u32 = 3;

/// [`Setting::policy`] for [`NonFinite::Skip`](crate::NonFinite::Skip).
pub const POLICY_SKIP: u32 = 0;
/// [`Setting::policy`] for [`NonFinite::Zero`](crate::NonFinite::Zero).
pub const POLICY_ZERO: u32 = 1;
/// [`Setting::policy`] for [`NonFinite::Sanitize`](crate::NonFinite::Sanitize).
pub const POLICY_SANITIZE: u32 = 2;
/// [`Setting::policy`] for [`NonFinite::Nan`](crate::NonFinite::Nan).
pub const POLICY_NAN: u32 = 3;

/// Bits of [`ChunkRow::slot_len`] that hold the length; the slot lies above them.
pub const LEN_BITS: u32 = 15;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
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

/// A run of consecutive items that add up to one [`Sum`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Run {
    /// Index of the first item.
    pub first: u32,
    /// Number of items; 0 adds up to zero.
    pub count: u32,
    /// Index of the [`Sum`] written.
    pub target: u32,
    /// Always 0.
    pub pad: u32,
}

/// How many runs a combining dispatch has; the first `serial` are short ones.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Job {
    /// Runs of at most [`SERIAL_RUN`] items.
    pub serial: u32,
    /// All runs.
    pub runs: u32,
    /// First row of the dispatch (chunk kernels).
    pub first_row: u32,
    /// Rows of the dispatch (chunk kernels).
    pub rows: u32,
}

/// What is asked of one segment.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct Setting {
    /// Largest norm allowed, at least 0; infinity only measures.
    pub threshold: f32,
    /// Factor that gradients are multiplied by before anything else; 1 for none.
    pub unscale: f32,
    /// Added to the norm in the quotient.
    pub eps: f32,
    /// One of the `POLICY_` constants.
    pub policy: u32,
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
    /// The threshold that was used.
    pub threshold: f32,
    /// threshold / norm where the norm exceeds the threshold, else exactly 1.
    pub coefficient: f32,
    /// What elements are multiplied by: coefficient times unscale factor.
    pub scale: f32,
    /// 1, or a power of two that is to be multiplied twice more, when the product of coefficient and
    /// unscale factor is below `2^-126` and `scale` alone could not hold it.
    pub rescale: f32,
    /// What the apply pass does: [`KEEP`], [`MULTIPLY`], [`FILL`] or [`SANITIZE`].
    pub action: u32,
    /// [`CLIPPED`], [`NON_FINITE`], [`NAN`], [`SKIPPED`].
    pub flags: u32,
    /// Number of non-finite elements, saturating at `u32::MAX`.
    pub non_finite: u32,
    /// Index of the first tensor with one, or [`NONE`].
    pub first_non_finite: u32,
    /// The unscale factor that was used.
    pub unscale: f32,
}

/// The constants above as WGSL declarations.
pub fn wgsl_constants() -> String {
    let constants = [
        ("ROWS", ROWS),
        ("COLUMNS", COLUMNS),
        ("CHUNK", CHUNK),
        ("SERIAL_RUN", SERIAL_RUN),
        ("GUARD", GUARD),
        ("NONE", NONE),
        ("CLIPPED", CLIPPED),
        ("NON_FINITE", NON_FINITE),
        ("NAN", NAN),
        ("SKIPPED", SKIPPED),
        ("KEEP", KEEP),
        ("MULTIPLY", MULTIPLY),
        ("FILL", FILL),
        ("SANITIZE", SANITIZE),
        ("POLICY_SKIP", POLICY_SKIP),
        ("POLICY_ZERO", POLICY_ZERO),
        ("POLICY_SANITIZE", POLICY_SANITIZE),
        ("POLICY_NAN", POLICY_NAN),
        ("LEN_BITS", LEN_BITS),
    ];
    constants.iter().map(|(name, value)| format!("const {name}: u32 = {value}u;\n")).collect()
}
