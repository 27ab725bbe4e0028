//! sum and setting of a segment -> outcome: the twin of `shaders/coefficient.wgsl`.

use crate::clip::Kind;
use crate::layout::{
    CLIPPED, FILL, GUARD, KEEP, MULTIPLY, NAN, NON_FINITE, NONE, Outcome, POLICY_NAN, POLICY_SANITIZE,
    POLICY_SKIP, SANITIZE, SKIPPED, Setting, Sum,
};

use super::power;
use super::real::{F32_MIN_EXPONENT, NO_MIN_EXPONENT, Real, Rounded};

/// The norm that a sum stands for, before any rounding but the root's.
pub(crate) fn norm_of(sum: &Sum, kind: Kind) -> Real {
    let [lo, mid, hi] = sum.mantissa.map(u128::from);
    let mantissa = lo | (mid << 32) | (hi << 64);
    let guard = GUARD as i32;
    match kind {
        Kind::Inf => Real::from_f32(f32::from_bits(sum.exponent)),
        Kind::One => Real::new(mantissa, sum.exponent as i32 - 174 - guard, false),
        Kind::P(p) => power::norm(sum, f32::from_bits(p)),
        Kind::Two => Real::square_root(mantissa, 2 * (sum.exponent as i32 - 150) - guard),
    }
}

/// The norm of the unscaled gradients as it is reported and compared: an `f32` whose exponent has
/// no upper end.
pub(crate) fn unscaled_norm(sum: &Sum, kind: Kind, unscale: f32) -> Rounded {
    norm_of(sum, kind).multiply(Real::from_f32(unscale)).round(F32_MIN_EXPONENT)
}

/// Decides what happens to a segment.
pub(crate) fn decide(sum: &Sum, setting: &Setting, kind: Kind) -> Outcome {
    let norm = unscaled_norm(sum, kind, setting.unscale);
    let norm_f32 = norm.to_f32();
    let clipped = norm_f32 > setting.threshold;
    let coefficient = if clipped { quotient(norm, setting) } else { Real::ONE };
    let (scale, rescale) = split(coefficient.multiply(Real::from_f32(setting.unscale)));
    let mut out = Outcome {
        norm: norm_f32,
        norm_mantissa: norm.mantissa,
        norm_exponent: norm.exponent,
        threshold: setting.threshold,
        coefficient: coefficient.round(F32_MIN_EXPONENT).to_f32(),
        scale,
        rescale,
        action: if scale == 1.0 && rescale == 1.0 { KEEP } else { MULTIPLY },
        flags: if clipped { CLIPPED } else { 0 },
        non_finite: sum.non_finite,
        first_non_finite: sum.first,
        unscale: setting.unscale,
    };
    if sum.non_finite != 0 {
        decide_non_finite(&mut out, sum.nan != 0, setting.policy);
    } else {
        debug_assert_eq!(sum.first, NONE);
    }
    out
}

/// threshold / (norm + eps).
fn quotient(norm: Rounded, setting: &Setting) -> Real {
    let exact = |value: f32| Real::from_f32(value).round(NO_MIN_EXPONENT);
    let divisor = norm.add(exact(setting.eps)).round(NO_MIN_EXPONENT);
    exact(setting.threshold).quotient(divisor)
}

/// Splits a factor so that `f32` holds it: scale, and rescale to be multiplied twice.
fn split(factor: Real) -> (f32, f32) {
    let Rounded { mantissa, mut exponent } = factor.round(NO_MIN_EXPONENT);
    if mantissa == 0 || exponent < -400 {
        return (0.0, 1.0);
    }
    let mut rescale = 1.0;
    if exponent < F32_MIN_EXPONENT {
        let half = (F32_MIN_EXPONENT - exponent + 1) / 2;
        rescale = f32::from_bits(((127 - half) as u32) << 23);
        exponent += 2 * half;
    }
    (Rounded { mantissa, exponent }.to_f32(), rescale)
}

fn decide_non_finite(out: &mut Outcome, nan: bool, policy: u32) {
    out.flags |= NON_FINITE | if nan { NAN } else { 0 };
    if policy == POLICY_SANITIZE {
        out.action = SANITIZE;
        return;
    }
    out.norm = if nan { f32::NAN } else { f32::INFINITY };
    (out.norm_mantissa, out.norm_exponent) = (0, 0);
    out.flags &= !CLIPPED;
    out.rescale = 1.0;
    if policy == POLICY_SKIP {
        out.flags |= SKIPPED;
        (out.coefficient, out.scale, out.action) = (1.0, 1.0, KEEP);
        return;
    }
    let value = if policy == POLICY_NAN { f32::NAN } else { 0.0 };
    (out.coefficient, out.scale, out.action) = (value, value, FILL);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn real(value: f64) -> Real {
        // An f64 as mantissa and exponent, exactly.
        let bits = value.to_bits();
        let mantissa = (bits & ((1 << 52) - 1)) | (1 << 52);
        Real::new(u128::from(mantissa), (bits >> 52) as i32 - 1075, false)
    }

    /// f64 arithmetic followed by a rounding to f32 differs from one rounding only within 2^-29
    /// of a tie; these operands have 24 bits, so products and most sums are exact in f64.
    #[test]
    fn products_and_sums_round_as_hardware_does() {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            f32::from_bits(((100 + (state >> 40) % 60) << 23) as u32 | (state >> 33) as u32 & 0x7f_ffff)
        };
        for _ in 0..100_000 {
            let (a, b) = (next(), next());
            let round = |r: Real| r.round(F32_MIN_EXPONENT).to_f32();
            let exact = |x: f32| Real::from_f32(x).round(NO_MIN_EXPONENT);
            assert_eq!(round(Real::from_f32(a).multiply(Real::from_f32(b))), a * b);
            assert_eq!(round(exact(a).add(exact(b))), a + b);
            assert_eq!(round(exact(a).quotient(exact(b))), a / b);
        }
    }

    #[test]
    fn factors_below_the_normal_range_are_split() {
        for exponent in -376..0 {
            let value = 1.5 * 2f64.powi(exponent);
            let (scale, rescale) = split(real(value));
            assert_eq!(f64::from(scale) * f64::from(rescale) * f64::from(rescale), value, "2^{exponent}");
            assert!(scale >= f32::MIN_POSITIVE && rescale >= f32::MIN_POSITIVE, "2^{exponent}");
            assert_eq!(rescale == 1.0, exponent >= -126, "2^{exponent}");
        }
        assert_eq!(split(real(1e-200)), (0.0, 1.0));
    }
}
