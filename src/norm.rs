//! The norm that a sum stands for: what is compared with a threshold, and what a report tells.

use crate::clip::Summation;
use crate::layout::{GUARD, NONE, Sum};
use crate::real::{F32_MIN_EXPONENT, Real, Rounded};

/// The norm that a sum stands for, before any rounding but the root's.
#[inline]
pub(crate) fn norm_of(sum: &Sum, summation: Summation) -> Real {
    let [lo, mid, hi] = sum.mantissa.map(u128::from);
    let mantissa = lo | (mid << 32) | (hi << 64);
    let guard = GUARD as i32;
    match summation {
        Summation::Inf => Real::from_f32(f32::from_bits(sum.exponent)),
        Summation::One => Real::new(mantissa, sum.exponent as i32 - 174 - guard, false),
        Summation::P(p) => of_powers(sum, f32::from_bits(p)),
        Summation::Two => Real::square_root(mantissa, 2 * (sum.exponent as i32 - 150) - guard),
    }
}

/// The sum whose norm is this one exactly: of something that is not finite where it is not, or is negative, which no norm is.
pub(crate) fn sum_of_norm(norm: f32, summation: Summation) -> Sum {
    if !(norm >= 0.0 && norm.is_finite()) {
        let nan = u32::from(norm != f32::INFINITY);
        return Sum { mantissa: [0; 3], exponent: 0, non_finite: 1, nan, first: NONE, pad: 0 };
    }
    let bits = norm.abs().to_bits();
    let field = (bits >> 23).max(1);
    let mantissa = bits - ((field - 1) << 23);
    let (sum, exponent) = match summation {
        Summation::One => (u128::from(mantissa) << (24 + GUARD), field),
        Summation::Two => ((u128::from(mantissa) * u128::from(mantissa)) << GUARD, field),
        Summation::Inf => (0, bits),
        Summation::P(_) => (if bits == 0 { 0 } else { 1f32.to_bits().into() }, bits),
    };
    let mantissa = [sum as u32, (sum >> 32) as u32, (sum >> 64) as u32];
    Sum { mantissa, exponent, non_finite: 0, nan: 0, first: NONE, pad: 0 }
}

/// The norm of the unscaled gradients as it is reported and compared: an `f32` whose exponent has
/// no upper end.
#[inline]
pub(crate) fn unscaled_norm(sum: &Sum, summation: Summation, unscale: f32) -> Rounded {
    unscaled(norm_of(sum, summation), unscale)
}

/// A norm times the unscale factor, rounded so.
#[inline]
pub(crate) fn unscaled(norm: Real, unscale: f32) -> Rounded {
    norm.multiply(Real::from_f32(unscale)).round(F32_MIN_EXPONENT)
}

/// largest * powers^(1/p).
fn of_powers(sum: &Sum, p: f32) -> Real {
    let largest = Real::from_f32(f32::from_bits(sum.exponent));
    let powers = f32::from_bits(sum.mantissa[0]);
    if sum.exponent == 0 {
        return Real::ZERO;
    }
    // At least the largest element's own power, 1; at most far beyond any f32, so that the power of
    // two stays an integer.
    let log = (f64::from(powers).log2() / f64::from(p)).clamp(0.0, 60_000.0);
    let fraction = ((log - log.floor()).exp2() as f32).min(2f32.next_down());
    largest.multiply(Real::from_f32(fraction)).times_power_of_two(log.floor() as i32)
}
