//! The constants and records that Rust and WGSL share.
//!
//! Constants are written here once and generated into the shader text by [`wgsl_constants`]. The
//! records are declared again in `shaders/shared/records.wgsl`; `tests/layout.rs` compares every
//! offset with the one that naga computes from the WGSL.

mod step;

use bytemuck::{Pod, Zeroable};

pub use step::*;

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
/// Bit of [`Outcome::flags`]: the limit on the whole set was the smaller one.
pub const BY_TOTAL: u32 = 16;
/// Bit of [`Outcome::flags`]: the segment is left out, see
/// [`Pass::set_rows`](crate::Pass::set_rows).
pub const LEFT_OUT: u32 = 32;

/// [`Outcome::action`]: gradients keep every bit.
pub const KEEP: u32 = 0;
/// [`Outcome::action`]: every element is multiplied by `scale * rescale * rescale`.
pub const MULTIPLY: u32 = 1;
/// [`Outcome::action`]: every element becomes `scale`.
pub const FILL: u32 = 2;
/// [`Outcome::action`]: every element is multiplied by `unscale`, and its magnitude limited to
/// `scale`.
pub const CLAMP: u32 = 3;
/// [`Outcome::action`]: every element becomes `scale` with its own sign; zeros stay.
pub const SIGN: u32 = 4;
/// Bit of [`Outcome::action`], beside one of the above: non-finite elements become 0.
pub const SANITIZE: u32 = 8;

/// [`Setting::policy`] for [`NonFinite::Skip`](crate::NonFinite::Skip).
pub const POLICY_SKIP: u32 = 0;
/// [`Setting::policy`] for [`NonFinite::Zero`](crate::NonFinite::Zero).
pub const POLICY_ZERO: u32 = 1;
/// [`Setting::policy`] for [`NonFinite::Sanitize`](crate::NonFinite::Sanitize).
pub const POLICY_SANITIZE: u32 = 2;
/// [`Setting::policy`] for [`NonFinite::Nan`](crate::NonFinite::Nan).
pub const POLICY_NAN: u32 = 3;
/// [`Setting::policy`] for [`NonFinite::Keep`](crate::NonFinite::Keep).
pub const POLICY_KEEP: u32 = 4;

/// [`Setting::rule`]: the norm is limited, whatever it is divided by.
pub const RULE_NORM: u32 = 0;
/// [`Setting::rule`] for [`Rule::Value`](crate::Rule::Value).
pub const RULE_VALUE: u32 = 1;
/// [`Setting::rule`] for [`Rule::Agc`](crate::Rule::Agc).
pub const RULE_AGC: u32 = 2;
/// [`Setting::rule`] for [`Rule::Sign`](crate::Rule::Sign).
pub const RULE_SIGN: u32 = 3;
/// [`Setting::rule`] for [`Rule::Normalize`](crate::Rule::Normalize).
pub const RULE_NORMALIZE: u32 = 4;
/// [`Setting::rule`] of excluded groups: nothing is limited, also where thresholds adapt.
pub const RULE_FREE: u32 = 5;

/// [`Adaptation::rule`]: the threshold is fixed.
pub const ADAPT_NONE: u32 = 0;
/// [`Adaptation::rule`] for [`Adapt::Mean`](crate::Adapt::Mean).
pub const ADAPT_MEAN: u32 = 1;
/// [`Adaptation::rule`] for [`Adapt::Average`](crate::Adapt::Average).
pub const ADAPT_AVERAGE: u32 = 2;
/// [`Adaptation::rule`] for [`Adapt::Percentile`](crate::Adapt::Percentile).
pub const ADAPT_PERCENTILE: u32 = 3;
/// [`Adaptation::rule`] for [`Adapt::ZScore`](crate::Adapt::ZScore).
pub const ADAPT_ZSCORE: u32 = 4;
/// [`Adaptation::rule`] for [`Adapt::AdaGc`](crate::Adapt::AdaGc).
pub const ADAPT_ADAGC: u32 = 5;
/// [`Adaptation::rule`] for [`Adapt::Quantile`](crate::Adapt::Quantile).
pub const ADAPT_QUANTILE: u32 = 6;
/// [`Adaptation::reaction`] for [`Reaction::Mean`](crate::Reaction::Mean).
pub const REACTION_MEAN: u32 = 0;
/// [`Adaptation::reaction`] for [`Reaction::Max`](crate::Reaction::Max).
pub const REACTION_MAX: u32 = 1;
/// [`Adaptation::reaction`] for [`Reaction::Reciprocal`](crate::Reaction::Reciprocal).
pub const REACTION_RECIPROCAL: u32 = 2;

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

/// Up to a workgroup of neighbouring units, one invocation each: where one chunk of each lies and
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

/// A run of items that add up to one [`Sum`], or up to a workgroup of runs side by side: lane `l`
/// adds the items `first + l + k * stride` to the sum `target + l`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Run {
    /// Index of the first item.
    pub first: u32,
    /// Number of items; 0 adds up to zero.
    pub count: u32,
    /// Index of the [`Sum`] written.
    pub target: u32,
    /// Distance of the items.
    pub stride: u32,
    /// Number of runs.
    pub lanes: u32,
    /// Index of the tensor, for [`Sum::first`] of sums of chunks.
    pub tensor: u32,
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
    /// The segment of the whole set, or [`NONE`].
    pub total: u32,
    /// Number of limits that adapt.
    pub adaptive: u32,
    /// 1 where the deciding kernel also begins the step, or an accumulating one the sum.
    pub begins: u32,
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
}

/// The constants of an adaptive threshold, see [`Adapt`](crate::Adapt).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct Adaptation {
    /// One of the `ADAPT_` constants.
    pub rule: u32,
    /// Norms that a history keeps.
    pub window: u32,
    /// Steps of warm-up.
    pub steps: u32,
    /// One of the `REACTION_` constants.
    pub reaction: u32,
    /// Factor, percentile, z or quantile.
    pub a: f32,
    /// Decay or rate.
    pub b: f32,
}

/// What an adaptive threshold remembers, one a limit; its history of norms lies apart.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct State {
    /// Steps so far.
    pub steps: u32,
    /// Norms that came into the history so far.
    pub observed: u32,
    /// Mean, average, γ or C.
    pub mean: f32,
    /// Variance.
    pub variance: f32,
    /// Threshold of the last step.
    pub threshold: f32,
    /// 1 where the limit on the whole set does not apply.
    pub alone: u32,
    /// Segments whose norm was measured in the last step.
    pub counted: u32,
    /// Those of them whose norm exceeded the threshold.
    pub over: u32,
}

/// What happened so far and in the last step, over all segments.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct Tally {
    /// Steps so far.
    pub steps: u32,
    /// Steps in which some segment was clipped.
    pub clipped_steps: u32,
    /// Steps in which some segment was left alone because of a non-finite element.
    pub skipped_steps: u32,
    /// Segments clipped in the last step: per-example clipping's number of clipped examples.
    pub clipped: u32,
    /// Segments skipped in the last step.
    pub skipped: u32,
    /// Segments changed at all in the last step.
    pub changed: u32,
    /// The unscale factor of the last step.
    pub unscale: f32,
    /// Segments that held a non-finite element in the last step.
    pub non_finite: u32,
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
    /// middle ones perhaps with [`SANITIZE`].
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

/// The constants above as WGSL declarations.
pub fn wgsl_constants() -> String {
    macro_rules! declared {
        ($($name:ident),+ $(,)?) => { [$((stringify!($name), $name)),+] };
    }
    let constants = declared![
        ROWS,
        COLUMNS,
        CHUNK,
        SERIAL_RUN,
        GUARD,
        NONE,
        CLIPPED,
        NON_FINITE,
        NAN,
        SKIPPED,
        BY_TOTAL,
        LEFT_OUT,
        KEEP,
        MULTIPLY,
        FILL,
        CLAMP,
        SIGN,
        SANITIZE,
        POLICY_SKIP,
        POLICY_ZERO,
        POLICY_SANITIZE,
        POLICY_NAN,
        POLICY_KEEP,
        RULE_NORM,
        RULE_VALUE,
        RULE_AGC,
        RULE_SIGN,
        RULE_NORMALIZE,
        RULE_FREE,
        ADAPT_NONE,
        ADAPT_MEAN,
        ADAPT_AVERAGE,
        ADAPT_PERCENTILE,
        ADAPT_ZSCORE,
        ADAPT_ADAGC,
        ADAPT_QUANTILE,
        REACTION_MEAN,
        REACTION_MAX,
        REACTION_RECIPROCAL,
        LEN_BITS,
        SCALES_LOSS,
        STEPS,
        ADAM,
        NESTEROV,
        DECOUPLED,
        EPS_HAT,
    ];
    constants.iter().map(|(name, value)| format!("const {name}: u32 = {value}u;\n")).collect()
}
