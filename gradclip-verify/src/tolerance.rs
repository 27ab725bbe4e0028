//! How far a result may be off, and why: one table for the tests, `gradclip verify` and the benches.
//!
//! Names that end in `ULP` count units in the last place of the result's type; the others are relative to the exact value.
//! An `f32` rounds by 2^-24 at most, relative to what is rounded, which is half an ulp of a small mantissa and a quarter of
//! a large one.

use gradclip::NormType;

/// Half an ulp of an `f32`, relative to the smallest mantissa, for which it is most.
pub const HALF_ULP: f64 = f32::EPSILON as f64 / 2.0;

/// An L1, L2 or infinity norm: half an ulp for its one rounding, an eighth for what the sum drops (2^-27 of it), and what an
/// `f64` oracle loses, n * 2^-54 for n below 2^18.
pub const NORM_ULP: f64 = 0.65;
/// The same of `f64`: half an ulp for the rounding, and 2^-7 for what sums of 80 bits drop.
pub const NORM_F64_ULP: f64 = 0.51;
/// That of an `f32` as a share of it, where few elements are.
pub const NORM_F32: f64 = NORM_ULP * f32::EPSILON as f64;
/// A norm of any number of elements, as a share: an ulp of an `f32` is 2^-23, and the sum of 1e8 squares in `f64` loses less than a hundredth of that.
pub const NORM: f64 = 1.2e-7;
/// A norm of unscaled gradients, as a share: norm, factor and product are each rounded once.
pub const NORM_UNSCALED: f64 = 3.0 * HALF_ULP;
/// The norm of clipped gradients beside their threshold: that of the elements, which err by few ulp but not all to one side.
pub const NORM_AFTER: f64 = 1e-6;

/// A clipped `f32` beside its norm's error: sum with eps and scale are rounded, an ulp each of a result with a small
/// mantissa, and the product half an ulp.
pub const APPLIED_ULP: f64 = 2.5;
/// What is rounded once from an `f64` of many more digits: half an ulp, and what went before hardly shows.
pub const ONCE_ULP: f64 = 0.51;
/// A scalar that is rounded once from an `f64`: half an ulp, and `f64`'s own error.
pub const ROUNDED_ULP: f64 = 0.501;
/// A limit that follows from parameters: twice the norm's error, where mantissas are small, and a product.
pub const LIMIT_ULP: f64 = 2.0 * NORM_ULP + 1.0;
/// What rounding one way adds: half an ulp each for norm, sum with eps, coefficient, scale and product, of results with a
/// small mantissa, and half of one for the share by which norms are taken to be larger.
pub const BELOW_ULP: f64 = 5.5;

/// A clipped element: norm, quotient, scale and product are each rounded once, by 2^-24.
pub const SCALED: f64 = 2.5e-7;
/// The same under a limit that follows from parameters: their norm, its rounding and a product are two and a half more.
pub const SCALED_BY_PARAMETERS: f64 = 4e-7;
/// The same where unscaling multiplies once more, or the threshold that an answer is reckoned from is itself rounded.
pub const SCALED_TWICE: f64 = 3e-7;
/// The same where results are never above the limit: each of four roundings is one way, by at most 2^-23, and the norm is
/// taken to be 2^-26 larger.
pub const SCALED_BELOW: f64 = 5e-7;
/// The same by a coefficient that is known: one rounding of it and one of the product.
pub const TWICE_ROUNDED: f64 = 2.0 * HALF_ULP;
/// An element of `f16` clipped by an `f32`: its own rounding of 2^-11, and what the `f32` had lost, which is far less.
pub const SCALED_F16: f64 = 1.0 / 1024.0;

/// A clipped `f64`: coefficient, product and norm are within 2^-53 each, and the oracle's own division.
pub const SCALED_F64: f64 = 4e-16;
/// The same beside a program of plain sums: those of 200 squares lose 2^-46 at most, all else a few 2^-53.
pub const PLAIN_SUMS_F64: f64 = 2e-14;

/// What peers print with seven digits.
pub const SEVEN_DIGITS: f64 = 1e-6;
/// What peers print with eight digits.
pub const EIGHT_DIGITS: f64 = 1e-7;

/// Corrections of Adam, whose power by squaring rounds three times a bit of the number of steps, below 2^6, and four times.
pub const CORRECTION: f64 = 22.0 * HALF_ULP;
/// A step of the optimisers' own formula in another order: the product with a rate may be fused with the difference.
pub const FUSED: f64 = 2.0 * HALF_ULP;

/// Sums of five numbers below 1 in `f32`: four roundings of values below 5. Absolute.
pub const SUM_OF_FIVE: f64 = 4.0 * 5.0 * HALF_ULP;

/// A threshold from the mean of a window: the norms', the sum's, the quotient's and the product's rounding, and the factor
/// is exact.
pub const MEAN: f64 = 5.0 * HALF_ULP;
/// A threshold from an exponential average that forgets a share of itself a step, and to which each step adds so many
/// roundings: a sum of two products takes three, the norm has one, and a norm that is limited first another.
pub fn average(roundings: f64, forgets: f64) -> f64 {
    roundings / forgets * HALF_ULP
}
/// A threshold from mean and deviation: the mean is good to four roundings over what is forgotten; distances from it, a
/// tenth as large, to ten times that; and the variance to twice that again.
pub fn deviation(forgets: f64) -> f64 {
    4.0 / forgets * 20.0 * HALF_ULP
}
/// A percentile: its rank is good to a rounding of itself, 500 at most, of a gap that spikes make 1e5 wide for the last
/// ranks only; lower percentiles end below them, or on a rank, and high ones beside them.
pub fn percentile(percent: f64) -> f64 {
    if percent >= 90.0 { 1e-3 } else { 1e-4 }
}
/// A threshold that every step multiplies: four roundings a step, none forgotten.
pub fn products(steps: usize) -> f64 {
    4.0 * HALF_ULP * steps as f64
}

/// A norm of any p on the CPU path: records are rounded to `f32`, and the root divides their error by p.
pub fn power_on_cpu(p: f64) -> f64 {
    HALF_ULP * (2.0 + 3.0 / p)
}
/// The same on an adapter, of n elements. The logarithm of the sum of powers is at most log2 n / p and has a relative error
/// of a few 2^-23 (WGSL: 3 ulp, or 2^-21 absolute near 1); the norm's relative error is ln 2 times its absolute one. Each
/// power adds 2^-21 p |log2 ratio| at most where it still counts (|log2 ratio| p < 24), which the root divides by p, and
/// the sum of n terms by halves 2^-20.
pub fn power_on_adapter(p: f64, n: usize) -> f64 {
    HALF_ULP * (8.0 * (n as f64).log2() / p + 16.0 + 208.0 / p)
}

/// A sum of powers of one chunk in two kernels of one device, which compiles exponentials and logarithms in each: a few ulp of
/// 2^-21 an element, of which all could err to one side.
pub const POWER_FORMS: f64 = 1e-5;

/// The largest error of a norm on the CPU path in ulp, of which a small mantissa has two to each 2^-23.
pub fn norm_ulp(norm: NormType) -> f64 {
    match norm {
        NormType::P(p) => 2.0 * power_on_cpu(p) / HALF_ULP,
        _ => NORM_ULP,
    }
}
