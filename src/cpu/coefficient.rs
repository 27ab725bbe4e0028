//! sum and setting of a segment -> outcome: the twin of `shaders/coefficient.wgsl` and
//! `shaders/shared/decide.wgsl`.

mod quick;

use crate::clip::Summation;
use crate::layout::{
    BY_TOTAL, CLAMP, CLIPPED, FILL, KEEP, MULTIPLY, NAN, NON_FINITE, Outcome, POLICY_KEEP, POLICY_NAN,
    POLICY_SANITIZE, POLICY_SKIP, RULE_AGC, RULE_NORMALIZE, RULE_SIGN, RULE_VALUE, SANITIZE, SIGN, SKIPPED,
    SPIKE, Setting, Sum, TOWARD_ZERO,
};

use crate::combine;
use crate::norm::{norm_of, unscaled};
use crate::real::{F32_MIN_EXPONENT, NO_MIN_EXPONENT, Real, Rounded};

pub(super) use quick::Quick;

/// A norm as it is compared, never below that of the unscaled gradients: sums and roots drop bits downwards, less than
/// a share of 2^-26 of them (see [`crate::numbers`]).
fn unscaled_above(norm: Real, summation: Summation, unscale: f32) -> Rounded {
    let above = match summation {
        Summation::Inf => norm,
        _ => norm.enlarged(norm.share(26) + 2),
    };
    above.multiply(Real::from_f32(unscale)).round_up()
}

/// A norm below this counts as this in the quotient of adaptive gradient clipping.
const AGC_LEAST_NORM: f32 = 1e-6;
/// Largest exponent of an `f32` whose mantissa is an integer of 24 bits.
const F32_MAX_EXPONENT: i32 = 104;

fn exactly(value: f32) -> Rounded {
    Real::from_f32(value).round(NO_MIN_EXPONENT)
}

fn larger(a: Rounded, b: Rounded) -> Rounded {
    if a.exceeds(b) { a } else { b }
}

/// The largest norm allowed; `parameters` is the sum of the parameters where the rule compares with it.
fn limit_of(setting: &Setting, parameters: &Sum, summation: Summation) -> Real {
    let lifted = Real::from_f32(setting.threshold).times_power_of_two(setting.lift);
    if setting.rule != RULE_AGC {
        return lifted;
    }
    let norm = rounded(norm_of(parameters, summation), F32_MIN_EXPONENT, setting);
    lifted.multiply(larger(norm, exactly(setting.floor)).to_real())
}

/// To nearest, or down where nothing may be above its limit.
fn rounded(value: Real, least: i32, setting: &Setting) -> Rounded {
    if setting.below == 1 { value.round_down(least) } else { value.round(least) }
}

/// limit / (norm + eps).
fn quotient(norm: Rounded, limit: Rounded, setting: &Setting) -> Real {
    let divisor = norm.add(exactly(setting.eps));
    let divisor = if setting.below == 1 { divisor.round_up() } else { divisor.round(NO_MIN_EXPONENT) };
    let agc = setting.rule == RULE_AGC;
    limit.quotient(if agc { larger(divisor, exactly(AGC_LEAST_NORM)) } else { divisor })
}

/// What decides about segments with one setting; what they have in common is computed once.
pub(crate) struct Decider<'a> {
    setting: &'a Setting,
    summation: Summation,
    /// The limit, where it does not follow from parameters.
    limit: Option<Limit>,
    /// The factor of what is not over it.
    kept: Factor,
}

#[derive(Clone, Copy)]
struct Limit {
    exact: Rounded,
    threshold: f32,
}

#[derive(Clone, Copy)]
struct Factor {
    coefficient: f32,
    scale: f32,
    rescale: f32,
}

/// Decides what happens to a segment.
pub(crate) fn decide(sum: &Sum, setting: &Setting, parameters: &Sum, summation: Summation) -> Outcome {
    Decider::new(setting, summation).decide(sum, parameters)
}

impl<'a> Decider<'a> {
    pub(crate) fn new(setting: &'a Setting, summation: Summation) -> Decider<'a> {
        let limit = (setting.rule != RULE_AGC).then(|| Limit::new(setting, &combine::NOTHING, summation));
        Decider { setting, summation, limit, kept: Factor::new(Real::ONE, setting) }
    }

    /// What magnitudes or squares add up to at most, where their norm is surely not over its limit and what happens is what happens
    /// under a norm of 0; below 0 where that is not known. Far enough below the limit that no rounding counts.
    pub(crate) fn surely_kept(&self) -> f64 {
        const LEAST: f64 = 1e-30;
        let setting = self.setting;
        let limit = f64::from(setting.threshold) * 2f64.powi(setting.lift);
        let apart = matches!(setting.rule, RULE_AGC | RULE_NORMALIZE) || limit < LEAST;
        let largest = limit / f64::from(setting.unscale) * (1.0 - 2f64.powi(-17));
        match self.summation {
            Summation::One if !apart => largest,
            Summation::Two if !apart => largest * largest,
            _ => -1.0,
        }
    }

    /// What tells the factor of most that is over the limit, where the rule has one.
    pub(super) fn quick(&self) -> Option<Quick> {
        self.limit.and_then(|limit| Quick::new(self.setting, limit.exact, self.summation))
    }

    /// `parameters` is the sum of the parameters where the rule compares with it.
    pub(crate) fn decide(&self, sum: &Sum, parameters: &Sum) -> Outcome {
        let Decider { setting, summation, .. } = *self;
        let exact_norm = norm_of(sum, summation);
        let norm = unscaled(exact_norm, setting.unscale);
        let unlimited = setting.threshold == f32::INFINITY;
        let Limit { exact, threshold } =
            self.limit.unwrap_or_else(|| Limit::new(setting, parameters, summation));
        let compared = match setting.below {
            1 => unscaled_above(exact_norm, summation, setting.unscale),
            _ => norm,
        };
        let over = !unlimited && compared.exceeds(exact);
        let scales = over && setting.rule != RULE_SIGN && setting.rule != RULE_VALUE;
        let normalises = setting.rule == RULE_NORMALIZE && norm.mantissa != 0;
        let least = exactly(setting.raised);
        let raises = !over && norm.mantissa != 0 && least.exceeds(compared);
        let factor = match scales || normalises {
            true => Factor::new(quotient(compared, exact, setting), setting),
            false if raises => Factor::new(quotient(compared, least, setting), setting),
            false => self.kept,
        };
        let Factor { coefficient, scale, rescale } = factor;
        let keeps = scale == 1.0 && rescale == 1.0;
        let multiply = MULTIPLY | if setting.below == 1 { TOWARD_ZERO } else { 0 };
        let out = Outcome {
            norm: norm.to_f32(),
            norm_mantissa: norm.mantissa,
            norm_exponent: norm.exponent,
            threshold,
            coefficient,
            scale,
            rescale,
            action: if keeps { KEEP } else { multiply },
            flags: if over { CLIPPED } else { 0 },
            non_finite: sum.non_finite,
            first_non_finite: sum.first,
            unscale: setting.unscale,
        };
        with_rule(out, sum, setting, parameters, (over, keeps))
    }
}

impl Limit {
    fn new(setting: &Setting, parameters: &Sum, summation: Summation) -> Limit {
        if setting.threshold == f32::INFINITY {
            return Limit { exact: Real::ZERO.round(NO_MIN_EXPONENT), threshold: f32::INFINITY };
        }
        let limit = limit_of(setting, parameters, summation);
        Limit {
            exact: rounded(limit, NO_MIN_EXPONENT, setting),
            threshold: rounded(limit, F32_MIN_EXPONENT, setting).to_f32(),
        }
    }
}

impl Factor {
    fn new(coefficient: Real, setting: &Setting) -> Factor {
        let factor = coefficient.multiply(Real::from_f32(setting.unscale));
        let (scale, rescale) = split(rounded(factor, NO_MIN_EXPONENT, setting));
        Factor { coefficient: rounded(coefficient, F32_MIN_EXPONENT, setting).to_f32(), scale, rescale }
    }
}

/// What rules other than that of norms make of it, and what is not finite.
fn with_rule(
    mut out: Outcome,
    sum: &Sum,
    setting: &Setting,
    parameters: &Sum,
    (over, keeps): (bool, bool),
) -> Outcome {
    match setting.rule {
        RULE_SIGN if over => set_elementwise(&mut out, SIGN),
        // What unscaling rounds to 16 bits might exceed the limit, too.
        RULE_VALUE if over || !keeps => set_elementwise(&mut out, CLAMP),
        _ => {}
    }
    if setting.rule == RULE_AGC {
        // No limit follows from parameters that are not finite.
        out.non_finite = out.non_finite.saturating_add(parameters.non_finite);
        out.first_non_finite = out.first_non_finite.min(parameters.first);
    }
    if out.non_finite != 0 {
        let nan = sum.nan != 0 || (setting.rule == RULE_AGC && parameters.nan != 0);
        decide_non_finite(&mut out, nan, setting);
    }
    out
}

/// `scale` is a magnitude, and no factor.
fn set_elementwise(out: &mut Outcome, action: u32) {
    (out.action, out.scale, out.rescale) = (action, out.threshold, 1.0);
}

/// Splits a factor so that `f32` holds it: scale, and rescale to be multiplied twice.
fn split(factor: Rounded) -> (f32, f32) {
    let Rounded { mantissa, exponent } = factor;
    if mantissa == 0 || exponent < -400 {
        return (0.0, 1.0);
    }
    let half = match exponent {
        ..F32_MIN_EXPONENT => -((F32_MIN_EXPONENT - exponent + 1) / 2),
        F32_MIN_EXPONENT..=F32_MAX_EXPONENT => 0,
        _ => ((exponent - F32_MAX_EXPONENT + 1) / 2).min(127),
    };
    let rescale = f32::from_bits(((127 + half) as u32) << 23);
    (Rounded { mantissa, exponent: exponent - 2 * half }.to_f32(), rescale)
}

fn decide_non_finite(out: &mut Outcome, nan: bool, setting: &Setting) {
    out.flags |= NON_FINITE | if nan { NAN } else { 0 };
    if setting.policy == POLICY_SANITIZE {
        out.action = out.action.max(MULTIPLY) | SANITIZE;
        return;
    }
    out.norm = if nan { f32::NAN } else { f32::INFINITY };
    (out.norm_mantissa, out.norm_exponent) = (0, 0);
    if setting.policy == POLICY_KEEP {
        if setting.threshold != f32::INFINITY {
            out.flags |= CLIPPED;
            set_elementwise(out, CLAMP);
        }
        return;
    }
    out.flags &= !CLIPPED;
    out.rescale = 1.0;
    if setting.policy == POLICY_SKIP {
        out.flags |= SKIPPED;
        (out.coefficient, out.scale, out.action) = (1.0, 1.0, KEEP);
        return;
    }
    let value = if setting.policy == POLICY_NAN { f32::NAN } else { 0.0 };
    (out.coefficient, out.scale, out.action) = (value, value, FILL);
}

/// The limit on the whole set: what it does to all, or the smaller coefficient.
pub(crate) fn limit_by_total(out: &mut Outcome, total: &Outcome, setting: &Setting) {
    let poisoned = total.flags & NON_FINITE != 0 && setting.policy != POLICY_SANITIZE;
    // One that limits nothing leaves what is raised as well.
    let limits = total.flags & CLIPPED != 0 && lies_below(total, out);
    if !poisoned && !limits {
        return;
    }
    out.coefficient = total.coefficient;
    (out.scale, out.rescale) = (total.scale, total.rescale);
    let action = MULTIPLY | (out.action & SANITIZE) | (total.action & TOWARD_ZERO);
    out.action = if poisoned { total.action } else { action };
    out.flags |= BY_TOTAL | (total.flags & (CLIPPED | SKIPPED));
    if poisoned {
        out.flags &= !CLIPPED;
    }
}

/// Whether one coefficient is the smaller one. Where `f32` has no bits left to tell, the factors do, whose exponents go further.
fn lies_below(total: &Outcome, out: &Outcome) -> bool {
    let (a, b) = (total.coefficient.to_bits(), out.coefficient.to_bits());
    if a != b || a >= f32::MIN_POSITIVE.to_bits() {
        return a < b;
    }
    factor_bits(total) < factor_bits(out)
}

/// A factor's exponent and mantissa, in an order that is that of factors; 0 below all others.
fn factor_bits(out: &Outcome) -> (i32, u32) {
    let [scale, rescale] = [out.scale, out.rescale].map(|part| part.to_bits());
    if scale == 0 {
        return (i32::MIN, 0);
    }
    ((scale >> 23) as i32 + 2 * (rescale >> 23) as i32, scale & 0x7f_ffff)
}

/// A step is left out: nothing changes, whatever was decided.
pub(crate) fn leave(out: &mut Outcome) {
    out.flags = (out.flags & (NON_FINITE | NAN)) | SKIPPED | SPIKE;
    (out.coefficient, out.scale, out.rescale, out.action) = (1.0, 1.0, 1.0, KEEP);
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
            let (scale, rescale) = split(real(value).round(NO_MIN_EXPONENT));
            assert_eq!(f64::from(scale) * f64::from(rescale) * f64::from(rescale), value, "2^{exponent}");
            assert!(scale >= f32::MIN_POSITIVE && rescale >= f32::MIN_POSITIVE, "2^{exponent}");
            assert_eq!(rescale == 1.0, exponent >= -126, "2^{exponent}");
        }
        for exponent in 0..377 {
            let value = 1.5 * 2f64.powi(exponent);
            let (scale, rescale) = split(real(value).round(NO_MIN_EXPONENT));
            assert_eq!(f64::from(scale) * f64::from(rescale) * f64::from(rescale), value, "2^{exponent}");
            assert_eq!(rescale == 1.0, exponent <= 127, "2^{exponent}");
        }
        assert_eq!(split(real(1e-200).round(NO_MIN_EXPONENT)), (0.0, 1.0));
    }
}
