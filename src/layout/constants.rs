//! Constants: written here once, generated into the shader text.

use super::sparse::*;
use super::step::*;

/// Elements of a column: the block that is summed in units of its own largest exponent.
pub const ROWS: u32 = 16;
/// Columns of a chunk. Element `r * COLUMNS + c` of a chunk is row `r` of column `c`.
pub const COLUMNS: u32 = 1024;
/// Elements of a chunk: the work of a workgroup, which several short ones may share. Chunks are counted from each tensor's own start.
pub const CHUNK: u32 = ROWS * COLUMNS;
/// Invocations that add up a chunk of at most [`COLUMNS`] elements where several share a workgroup.
pub const TEAM: u32 = 16;
/// Runs of at most this many items are added up by one invocation, longer ones by one workgroup.
pub const SERIAL_RUN: u32 = 8;
/// Bits that a [`Sum`](super::Sum) has below those of a [`Partial`](super::Partial).
pub const GUARD: u32 = 8;
/// Chunks of a set: as many as 96 bits hold the sum of.
pub const MOST_CHUNKS: u64 = 1 << (96 - 62 - GUARD);
/// The value of [`Sum::first`](super::Sum::first) when no tensor holds a non-finite element.
pub const NONE: u32 = u32::MAX;

/// Bit of [`Outcome::flags`](super::Outcome::flags): the norm exceeded the threshold.
pub const CLIPPED: u32 = 1;
/// Bit of [`Outcome::flags`](super::Outcome::flags): the segment holds an infinite or NaN element.
pub const NON_FINITE: u32 = 2;
/// Bit of [`Outcome::flags`](super::Outcome::flags): the segment holds a NaN element.
pub const NAN: u32 = 4;
/// Bit of [`Outcome::flags`](super::Outcome::flags): the gradients were left alone because of a non-finite element, and an
/// optimiser should leave parameters and state alone too.
pub const SKIPPED: u32 = 8;
/// Bit of [`Outcome::flags`](super::Outcome::flags): the limit on the whole set was the smaller one.
pub const BY_TOTAL: u32 = 16;
/// Bit of [`Outcome::flags`](super::Outcome::flags): the segment is left out, see
/// [`Pass::set_rows`](crate::Pass::set_rows).
pub const LEFT_OUT: u32 = 32;
/// Bit of [`Outcome::flags`](super::Outcome::flags), along with [`SKIPPED`]: the whole step was left out for a spike, see
/// [`Skip`](crate::Skip).
pub const SPIKE: u32 = 64;

/// Bit of [`Progress::reasons`](super::Progress::reasons): the norm was above the bound.
pub const REASON_ABOVE: u32 = 1;
/// Bit of [`Progress::reasons`](super::Progress::reasons): the norm was far above those before it.
pub const REASON_NORM: u32 = 2;
/// Bit of [`Progress::reasons`](super::Progress::reasons): the loss was far above those before it.
pub const REASON_LOSS: u32 = 4;
/// Bit of [`Progress::reasons`](super::Progress::reasons): the loss was not finite.
pub const REASON_LOSS_NON_FINITE: u32 = 8;
/// Bit of [`Progress::reasons`](super::Progress::reasons): a gradient was not finite.
pub const REASON_NON_FINITE: u32 = 16;
/// Bit of [`Progress::reasons`](super::Progress::reasons): there were more such steps in a row than the rule leaves out.
pub const GAVE_UP: u32 = 32;
/// Bit of [`Progress::reasons`](super::Progress::reasons), along with [`GAVE_UP`]: the step went through.
pub const LET_THROUGH: u32 = 64;

/// Bit of [`Skipping::flags`](super::Skipping::flags): the loss is watched, too.
pub const SKIP_LOSS: u32 = 1;
/// Bit of [`Skipping::flags`](super::Skipping::flags): values of steps that were left out are not kept.
pub const SKIP_FORGETS: u32 = 2;
/// Bit of [`Skipping::flags`](super::Skipping::flags): values that are not finite are kept.
pub const SKIP_NON_FINITE: u32 = 4;
/// Bit of [`Skipping::flags`](super::Skipping::flags): there is a largest number of steps in a row.
pub const SKIP_GIVES_UP: u32 = 8;
/// Bit of [`Skipping::flags`](super::Skipping::flags): the step after so many goes through, where it is finite.
pub const SKIP_LETS_THROUGH: u32 = 16;
/// Bit of [`Skipping::flags`](super::Skipping::flags): also where it is not.
pub const SKIP_LETS_ALL: u32 = 32;

/// [`Outcome::action`](super::Outcome::action): gradients keep every bit.
pub const KEEP: u32 = 0;
/// [`Outcome::action`](super::Outcome::action): every element is multiplied by `scale * rescale * rescale`.
pub const MULTIPLY: u32 = 1;
/// [`Outcome::action`](super::Outcome::action): every element becomes `scale`.
pub const FILL: u32 = 2;
/// [`Outcome::action`](super::Outcome::action): every element is multiplied by `unscale`, and its magnitude limited to
/// `scale`.
pub const CLAMP: u32 = 3;
/// [`Outcome::action`](super::Outcome::action): every element becomes `scale` with its own sign; zeros stay.
pub const SIGN: u32 = 4;
/// Bit of [`Outcome::action`](super::Outcome::action), along with one of the above: non-finite elements become 0.
pub const SANITIZE: u32 = 8;
/// Bit of [`Outcome::action`](super::Outcome::action), along with [`MULTIPLY`]: products are rounded towards zero, to the
/// gradient's own type.
pub const TOWARD_ZERO: u32 = 16;

/// [`Setting::policy`](super::Setting::policy) for [`NonFinite::Skip`](crate::NonFinite::Skip).
pub const POLICY_SKIP: u32 = 0;
/// [`Setting::policy`](super::Setting::policy) for [`NonFinite::Zero`](crate::NonFinite::Zero).
pub const POLICY_ZERO: u32 = 1;
/// [`Setting::policy`](super::Setting::policy) for [`NonFinite::Sanitize`](crate::NonFinite::Sanitize).
pub const POLICY_SANITIZE: u32 = 2;
/// [`Setting::policy`](super::Setting::policy) for [`NonFinite::Nan`](crate::NonFinite::Nan).
pub const POLICY_NAN: u32 = 3;
/// [`Setting::policy`](super::Setting::policy) for [`NonFinite::Keep`](crate::NonFinite::Keep).
pub const POLICY_KEEP: u32 = 4;

/// [`Setting::rule`](super::Setting::rule): the norm is limited, whatever it is divided by.
pub const RULE_NORM: u32 = 0;
/// [`Setting::rule`](super::Setting::rule) for [`Rule::Value`](crate::Rule::Value).
pub const RULE_VALUE: u32 = 1;
/// [`Setting::rule`](super::Setting::rule) for [`Rule::Agc`](crate::Rule::Agc).
pub const RULE_AGC: u32 = 2;
/// [`Setting::rule`](super::Setting::rule) for [`Rule::Sign`](crate::Rule::Sign).
pub const RULE_SIGN: u32 = 3;
/// [`Setting::rule`](super::Setting::rule) for [`Rule::Normalize`](crate::Rule::Normalize).
pub const RULE_NORMALIZE: u32 = 4;
/// [`Setting::rule`](super::Setting::rule) of excluded groups: nothing is limited, also where thresholds adapt.
pub const RULE_FREE: u32 = 5;

/// [`Adaptation::rule`](super::Adaptation::rule): the threshold is fixed.
pub const ADAPT_NONE: u32 = 0;
/// [`Adaptation::rule`](super::Adaptation::rule) for [`Adapt::Mean`](crate::Adapt::Mean).
pub const ADAPT_MEAN: u32 = 1;
/// [`Adaptation::rule`](super::Adaptation::rule) for [`Adapt::Average`](crate::Adapt::Average).
pub const ADAPT_AVERAGE: u32 = 2;
/// [`Adaptation::rule`](super::Adaptation::rule) for [`Adapt::Percentile`](crate::Adapt::Percentile).
pub const ADAPT_PERCENTILE: u32 = 3;
/// [`Adaptation::rule`](super::Adaptation::rule) for [`Adapt::ZScore`](crate::Adapt::ZScore).
pub const ADAPT_ZSCORE: u32 = 4;
/// [`Adaptation::rule`](super::Adaptation::rule) for [`Adapt::AdaGc`](crate::Adapt::AdaGc).
pub const ADAPT_ADAGC: u32 = 5;
/// [`Adaptation::rule`](super::Adaptation::rule) for [`Adapt::Quantile`](crate::Adapt::Quantile).
pub const ADAPT_QUANTILE: u32 = 6;
/// [`Adaptation::rule`](super::Adaptation::rule) for [`Adapt::Aggc`](crate::Adapt::Aggc).
pub const ADAPT_AGGC: u32 = 7;
/// [`Adaptation::rule`](super::Adaptation::rule) for [`Adapt::NoisyQuantile`](crate::Adapt::NoisyQuantile).
pub const ADAPT_NOISY_QUANTILE: u32 = 8;
/// [`Adaptation::reaction`](super::Adaptation::reaction) for [`Adapt::PastPercentile`](crate::Adapt::PastPercentile): this step's norm
/// comes in afterwards.
pub const REACTION_PAST: u32 = 1;
/// [`Adaptation::reaction`](super::Adaptation::reaction) for [`Adapt::Aggc`](crate::Adapt::Aggc) whose average begins at 0.
pub const REACTION_FROM_ZERO: u32 = 1;
/// [`Adaptation::reaction`](super::Adaptation::reaction) for [`Reaction::Mean`](crate::Reaction::Mean).
pub const REACTION_MEAN: u32 = 0;
/// [`Adaptation::reaction`](super::Adaptation::reaction) for [`Reaction::Max`](crate::Reaction::Max).
pub const REACTION_MAX: u32 = 1;
/// [`Adaptation::reaction`](super::Adaptation::reaction) for [`Reaction::Reciprocal`](crate::Reaction::Reciprocal).
pub const REACTION_RECIPROCAL: u32 = 2;

/// Bit of [`Job::stages`](super::Job::stages): partials are added up.
pub const STAGE_TENSORS: u32 = 1;
/// Bit of [`Job::stages`](super::Job::stages): sums of tensors are added up.
pub const STAGE_SEGMENTS: u32 = 2;
/// Bit of [`Job::stages`](super::Job::stages): thresholds and outcomes are decided.
pub const STAGE_DECIDE: u32 = 4;
/// Bit of [`Job::stages`](super::Job::stages): loss scale and optimiser follow.
pub const STAGE_ADVANCE: u32 = 8;

/// What keys of noise are for: a private sum's.
pub const NOISE_OF_SUMS: u32 = 0;
/// What keys of noise are for: an adaptive threshold's.
pub const NOISE_OF_THRESHOLDS: u32 = 1;

/// Bits of [`ChunkRow::slot_len`](super::ChunkRow::slot_len) that hold the length; the slot lies above them.
pub const LEN_BITS: u32 = 15;

/// Names and values of constants.
macro_rules! declared {
    ($($name:ident),+ $(,)?) => { [$((stringify!($name), $name)),+] };
}

/// The constants of records that programs may bind.
pub(crate) fn record_constants() -> [(&'static str, u32); 22] {
    declared![
        CLIPPED,
        NON_FINITE,
        NAN,
        SKIPPED,
        BY_TOTAL,
        LEFT_OUT,
        SPIKE,
        REASON_ABOVE,
        REASON_NORM,
        REASON_LOSS,
        REASON_LOSS_NON_FINITE,
        REASON_NON_FINITE,
        GAVE_UP,
        LET_THROUGH,
        KEEP,
        MULTIPLY,
        FILL,
        CLAMP,
        SIGN,
        SANITIZE,
        TOWARD_ZERO,
        NONE,
    ]
}

/// The constants above, and those of steps, as WGSL declarations.
pub fn wgsl_constants() -> String {
    let constants = declared![
        ROWS,
        COLUMNS,
        CHUNK,
        TEAM,
        SERIAL_RUN,
        GUARD,
        SKIP_LOSS,
        SKIP_FORGETS,
        SKIP_NON_FINITE,
        SKIP_GIVES_UP,
        SKIP_LETS_THROUGH,
        SKIP_LETS_ALL,
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
        ADAPT_AGGC,
        ADAPT_NOISY_QUANTILE,
        REACTION_PAST,
        REACTION_FROM_ZERO,
        REACTION_MEAN,
        REACTION_MAX,
        REACTION_RECIPROCAL,
        STAGE_TENSORS,
        STAGE_SEGMENTS,
        STAGE_DECIDE,
        STAGE_ADVANCE,
        NOISE_OF_SUMS,
        NOISE_OF_THRESHOLDS,
        LEN_BITS,
        TABLE_ROWS,
        LIST_HEADER,
        LONG_LIST,
        SCALES_LOSS,
        STEPS,
        ADAM,
        NESTEROV,
        DECOUPLED,
        EPS_HAT,
        AMSGRAD,
        MAXIMIZE,
        LION,
        NADAM,
        RADAM,
        ADOPT,
        CLIPS_UPDATE,
        SPAM,
        LARS,
        LIMITS_RMS,
        LIMITS_RATE,
        TRUST_RATIO,
        NORMS_APART,
        RATIOS,
    ];
    declarations("", &record_constants()) + &declarations("", &constants)
}

/// Constants as WGSL, their names with a prefix.
pub(crate) fn declarations(prefix: &str, constants: &[(&str, u32)]) -> String {
    constants.iter().map(|(name, value)| format!("const {prefix}{name}: u32 = {value}u;\n")).collect()
}
