//! The path of sets with `f64` gradients: the stages of [`super::stages`] in wider integers.
//!
//! A set in which any tensor is of `f64` is measured here as a whole: `f32`, `f16` and `bf16` elements are
//! `f64` values, so they widen exactly. Segments, rules, limits and policies are those of the other sets;
//! norm, threshold and coefficient are `f64`. Only adaptive thresholds, loss scaling, norms that are handed in and what leaves out steps by earlier ones are refused.
//!
//! # The sum
//!
//! A tensor, or each unit of one, is cut into *blocks* of 1,024 elements counted from its own start. Write
//! the magnitude of a finite `f64` as `m * 2^(e - 1075)` with `e` its exponent field, or 1 for a subnormal,
//! and `m` its mantissa of 53 bits. Let `E` be the largest `e` of a block.
//!
//! 1. L2: each element becomes `q = floor(m * 2^10 / 2^(E - e))`, at most 63 bits. Four squares fit 128
//!    bits; they are added, divided by 2^16, and added to the block's sum, which stays below 2^120.
//!    L1: `q = floor(m * 2^60 / 2^(E - e))`, at most 113 bits; the block's sum is exact.
//! 2. A block's sum is an integer times a power of two. On a fixed grid of digits of 32 bits it has at
//!    most five. Sums are added digit by digit, without carrying, and hold four digits from the highest
//!    that any of them has: what is below is dropped, digit by digit.
//!
//! Which digits are held depends on a maximum, and each digit is a sum of integers. So neither the order nor
//! the grouping of blocks, nor the number of threads, nor the order of tensors can change a bit, although
//! no sum has to know of those after it. The infinity norm is the largest magnitude's bits; any other p is
//! summed in floating point relative to the largest element, in the order of the elements, and not promised
//! to the bit.
//!
//! # The error of the norm
//!
//! Everything dropped is dropped downwards.
//!
//! * L2, within a block: `q` is exact for `E - e <= 10`. A smaller element has `q < 2^53`, loses less than
//!   1, and its square less than `2^54`. The largest element alone has `q^2 >= 2^124` (blocks of subnormals
//!   lose nothing). 1,023 such losses are below `2^64 / 2^124 = 2^-60` of the block's sum. Dividing by
//!   `2^16` loses 256 times less than `2^16`: `2^-100` together.
//! * L1, within a block: less than 1 of `2^112`, 1,023 times: below `2^-102`.
//! * Digits: a sum loses less than one unit of the lowest of four digits, and the total is at least one of
//!   the highest: `2^-96` for each of fewer than `2^32` blocks of a tensor, and again for each of fewer
//!   than `2^32` tensors of a segment: `2^-63` together.
//!
//! The sum is less than `2^-59.8` too small, the norm less than `2^-60.8` (for L1 less than `2^-62`). The
//! root is an integer root of 64 bits with a sticky bit. Its product with the unscale factor, an `f64`, is
//! exact in 128 bits but for that sticky part, and cut to 64 bits again: less than `2^-61` together. Then
//! follows one rounding to nearest-even: half an ulp. An ulp is at least `2^-53` of the value, so the norm
//! is within `0.5 + 2^-7.8 + 2^-8 < 0.51` ulp of exact for up to `2^42` elements of a tensor, of any finite
//! magnitude; subnormal norms within half of the smallest `f64` and `2^-60` of the norm.
//!
//! Norm and threshold are compared as rounded to 53 bits with an exponent that has no upper end: a norm above
//! `f64::MAX` still clips rightly, and the report's `f64` is then infinite with no element counted as not
//! finite. Coefficient and factor are rounded once from 64 bits and a sticky one, the factor with an
//! exponent that has no end at either side.
//!
//! # Elements
//!
//! An element becomes its product with the factor, rounded once to its own type, ties to even. What would be
//! infinite becomes the largest finite value. Where nothing may be above its limit
//! ([`Clip::never_above`](crate::Clip)) the norm that is compared is an upper bound (the norm itself where
//! no bit was dropped), limit, coefficient and factor are rounded down, and products towards zero.

mod apply;
mod block;
mod decide;
mod decided;
mod element;
mod measure;
mod norm;
mod power;
mod real;
mod report;
mod rules;
mod running;
mod sum;
mod wider;

use crate::clip::{Clip, NonFinite, Rule};
use crate::error::ClipError;
use crate::history::History;
use crate::report::Report;
use crate::segments::Segments;
use crate::tensor::{DType, TensorInfo};

use super::block::Values;
use super::skip;
pub(super) use decided::Decided;
use measure::Measured;
use rules::Rules;
pub(super) use running::Running;
pub(super) use wider::{apply_single, apply_single_units};

/// Whether a set comes here: one of its tensors, or of the parameters that the clip compares with, is of
/// `f64`.
pub(super) fn comes_here(infos: &[TensorInfo], parameters: &[Values<'_>], clip: &Clip) -> bool {
    let compares = matches!(clip.rule, Rule::Agc { .. });
    infos.iter().any(|info| info.dtype == DType::F64)
        || (compares && parameters.iter().any(|p| p.dtype() == DType::F64))
}

/// That a clip is one of those that this path has.
pub(super) fn check(clip: &Clip) -> Result<(), ClipError> {
    match clip.remembers() {
        false => Ok(()),
        true => Err(ClipError::Combination {
            what: "an adaptive threshold, a loss scale, a norm that is handed in or a rule that leaves out steps by earlier ones for a set with f64",
            required: "gradients of f32, f16 or bf16, whose norms it remembers as f32",
        }),
    }
}

/// Measures and decides; of `history` only the steps are counted. There are parameters of all tensors or of
/// none, those of excluded tensors empty.
pub(super) fn decide(
    tensors: &[Values<'_>],
    parameters: &[Values<'_>],
    infos: &[TensorInfo],
    parts: &Segments,
    (clip, thresholds): (&Clip, &[f64]),
    history: &mut History,
) -> (Decided, Report) {
    let rules = Rules::new(clip);
    let mut measured = Measured::new(parts, &rules);
    measured.add(tensors, parameters, parts, &rules);
    let decided = Decided::new(&measured, parts, (clip, thresholds), rules);
    decided.count(&mut history.tally);
    let report = report::report(clip, infos, parts, &measured, &decided, &history.tally);
    if clip.skip.is_some() {
        let non_finite = clip.non_finite == NonFinite::Skip && measured.non_finite(parts);
        skip::judge_bound((decided.above, non_finite), &mut history.progress);
    }
    (decided, report.judged(clip, &history.progress))
}

#[cfg(test)]
mod tests;
