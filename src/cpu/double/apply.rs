//! outcome -> gradients, in place.

use crate::segments::UnitView;

use super::decide::{Change, Outcome};
use super::element::{Format, Wide};
use super::real::{Real, Rounded, Towards, drop_bits, parts};
use super::rules::Rules;

/// Applies an outcome to neighbouring elements, those with bits above `most` being not finite.
pub(super) fn apply<T: Wide>(elements: &mut [T], outcome: &Outcome, most: u64, rules: &Rules) {
    let towards = rules.towards();
    if outcome.sanitize {
        return sanitized(elements, outcome, most, rules);
    }
    match outcome.change {
        Change::Keep => {}
        Change::Fill(value) => elements.fill(T::from_double(value)),
        Change::Multiply => multiply(elements, &Factor::new(outcome.factor, towards)),
        Change::Clamp(limit) => {
            let unscale = Factor::unscale(rules);
            let most = nearest_below::<T>(limit);
            each(elements, |x| clamped(unscale.times::<T>(x), most));
        }
        Change::Sign(magnitude) => {
            let magnitude = saturated::<T>(magnitude, Towards::Nearest);
            each(elements, |x| signed(x, magnitude));
        }
    }
}

/// What is not finite becomes 0 first.
fn sanitized<T: Wide>(elements: &mut [T], outcome: &Outcome, most: u64, rules: &Rules) {
    each(elements, |x| if x.to_bits() << 1 >> 1 > most { 0.0 } else { x });
    apply(elements, &Outcome { sanitize: false, ..*outcome }, most, rules);
}

#[inline(always)]
fn each<T: Wide>(elements: &mut [T], f: impl Fn(f64) -> f64) {
    elements.iter_mut().for_each(|e| *e = T::from_double(f(e.to_double())));
}

fn multiply<T: Wide>(elements: &mut [T], factor: &Factor) {
    match factor.hardware::<T>() {
        Some(by) if by <= 1.0 => each(elements, |x| x * by),
        Some(by) => each(elements, |x| finite_product::<T>(x, by)),
        None => each(elements, |x| factor.exact::<T>(x)),
    }
}

/// Infinite only where `x` is.
#[inline(always)]
fn finite_product<T: Wide>(x: f64, by: f64) -> f64 {
    let product = x * by;
    let largest = T::FORMAT.largest;
    if product.abs() > largest && x.is_finite() { largest.copysign(x) } else { product }
}

#[inline(always)]
fn signed(x: f64, magnitude: f64) -> f64 {
    if x == 0.0 { x } else { magnitude.copysign(x) }
}

/// NaN stays.
#[inline(always)]
fn clamped(x: f64, most: f64) -> f64 {
    if x.abs() > most { most.copysign(x) } else { x }
}

/// The largest value of the type that is finite and not above `limit`.
fn nearest_below<T: Wide>(limit: f64) -> f64 {
    saturated::<T>(limit, Towards::Zero)
}

/// A magnitude as a finite value of the type.
fn saturated<T: Wide>(magnitude: f64, towards: Towards) -> f64 {
    if magnitude.is_finite() { Factor::new(one(), towards).exact::<T>(magnitude) } else { T::FORMAT.largest }
}

fn one() -> Rounded {
    Real::ONE.round(0, Towards::Nearest)
}

/// A factor that elements are multiplied by, each product rounded once.
struct Factor {
    exact: Rounded,
    /// The same, where it is a normal `f64` or 0.
    double: Option<f64>,
    towards: Towards,
}

impl Factor {
    fn new(exact: Rounded, towards: Towards) -> Factor {
        Factor { exact, double: exact.as_normal(), towards }
    }

    fn unscale(rules: &Rules) -> Factor {
        Factor::new(Real::from_f64(rules.unscale).round(i32::MIN / 4, Towards::Nearest), rules.towards())
    }

    /// The factor by which the processor's own product is right: rounded once, to nearest, to an `f64`,
    /// which others would be rounded to before their own type.
    fn hardware<T: Wide>(&self) -> Option<f64> {
        self.double.filter(|_| T::FORMAT.bits == f64::MANTISSA_DIGITS && self.towards == Towards::Nearest)
    }

    /// The product, where it may be anything that is not finite too.
    #[inline(always)]
    fn times<T: Wide>(&self, x: f64) -> f64 {
        match self.hardware::<T>() {
            Some(by) => finite_product::<T>(x, by),
            None => self.exact::<T>(x),
        }
    }

    /// The product rounded once to a finite value of the type.
    #[inline]
    fn exact<T: Wide>(&self, x: f64) -> f64 {
        if !x.is_finite() {
            return x;
        }
        let (mantissa, exponent) = parts(x.to_bits() & (u64::MAX >> 1));
        let product = u128::from(mantissa) * u128::from(self.exact.mantissa);
        if product == 0 {
            return 0f64.copysign(x);
        }
        rounded(product, exponent + self.exact.exponent, T::FORMAT, self.towards).copysign(x)
    }
}

/// `value * 2^exponent` in a format, never above its largest; value below 2^106.
#[inline]
fn rounded(value: u128, exponent: i32, format: Format, towards: Towards) -> f64 {
    let used = 128 - value.leading_zeros() as i32;
    let least = (exponent + used - format.bits as i32).max(format.least);
    let by = least - exponent;
    let (kept, least) = match by {
        // Of a value with fewer bits than the format has.
        ..0 => (value as u64, exponent),
        _ => (drop_bits(value, by as u32, false, towards) as u64, least),
    };
    if least > 1023 {
        return format.largest;
    }
    // Both are f64 values, and so is their product unless it overflows.
    let unit = match least {
        -1022.. => f64::from_bits(((least + 1023) as u64) << 52),
        _ => f64::from_bits(1 << (least + 1074)),
    };
    (kept as f64 * unit).min(format.largest)
}

/// Applies to each element, the first of them element `first` of its tensor, the outcome of its unit.
pub(super) fn apply_units<T: Wide>(
    elements: &mut [T],
    first: u64,
    view: &UnitView,
    outcomes: &[Outcome],
    most: u64,
    rules: &Rules,
) {
    for (run, unit) in view.runs(first, elements.len()) {
        apply(&mut elements[run], &outcomes[unit], most, rules);
    }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;

    fn factor(value: f64) -> Rounded {
        Real::from_f64(value).round(i32::MIN / 4, Towards::Nearest)
    }

    fn times<T: Wide>(x: f64, by: f64, towards: Towards) -> f64 {
        Factor::new(factor(by), towards).exact::<T>(x)
    }

    /// The integer code is the processor's multiplication, subnormal results included.
    #[test]
    fn products_round_as_hardware_does() {
        let mut state = 9u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state ^ (state >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        };
        for _ in 0..300_000 {
            let (a, b) = (f64::from_bits(next()), f64::from_bits(next()));
            if !a.is_finite() || !b.is_finite() {
                continue;
            }
            let product = (a * b.abs()).clamp(-f64::MAX, f64::MAX);
            assert_eq!(times::<f64>(a, b, Towards::Nearest), product, "{a:e} {b:e}");
            let zero = times::<f64>(a, b, Towards::Zero);
            assert!(zero == product || zero.abs() == product.abs().next_down(), "{a:e} {b:e}");
            // 24 bits by 24 are exact in an f64, and so is its rounding to f32.
            let (a, b) = (a as f32, f32::from_bits(next() as u32).abs());
            if a.is_finite() && b.is_finite() {
                let product = (a * b).clamp(-f32::MAX, f32::MAX);
                assert_eq!(
                    times::<f32>(a.into(), b.into(), Towards::Nearest),
                    f64::from(product),
                    "{a:e} {b:e}"
                );
            }
        }
    }

    /// A product just above the middle of two halves, which an `f64` or `f32` product would round to the
    /// middle first and then down to even.
    #[test]
    fn narrow_products_round_once() {
        let just_above_tie = (1.0 + 2f64.powi(-11)) * (1.0 + f64::EPSILON);
        assert_eq!(times::<f16>(1.0, just_above_tie, Towards::Nearest), 1.0 + 2f64.powi(-10));
        assert_eq!(times::<f16>(1.0, 1.0 + 2f64.powi(-11), Towards::Nearest), 1.0);
        assert_eq!(times::<f16>(1.0, just_above_tie, Towards::Zero), 1.0);
        assert_eq!(
            times::<bf16>(1.0, 1.0 + 2f64.powi(-8) + 2f64.powi(-50), Towards::Nearest),
            1.0 + 2f64.powi(-7)
        );
        let x = 1.0 + 2f64.powi(-23);
        // (1 + 2^-23) (1 - 2^-24 + 2^-53): 2^-53 above the middle of 1 and 1 + 2^-23, but for terms of 2^-47.
        let by = 1.0 - 2f64.powi(-24) + 2f64.powi(-53);
        let exact = 1.0 + 2f64.powi(-24) - 2f64.powi(-47) + 2f64.powi(-53);
        assert_eq!(times::<f32>(x, by, Towards::Nearest), if exact > 1.0 + 2f64.powi(-24) { x } else { 1.0 });
    }

    #[test]
    fn finite_results_stay_finite() {
        for towards in [Towards::Nearest, Towards::Zero] {
            assert_eq!(times::<f16>(-60000.0, 1e300, towards), -65504.0);
            assert_eq!(times::<bf16>(3e38, 2.0, towards), bf16::MAX.to_f64());
            assert_eq!(times::<f32>(3e38, 2.0, towards), f64::from(f32::MAX));
            assert_eq!(times::<f64>(1e308, 1e308, towards), f64::MAX);
            assert_eq!(saturated::<f16>(1e5, towards), 65504.0);
        }
        assert_eq!(nearest_below::<bf16>(0.1), 0.099_609_375);
        assert_eq!(times::<f16>(65504.0 * 2f64.powi(-24), 0.25 / 65504.0, Towards::Nearest), 0.0);
        let mut g = [1e308, -1e308, f64::INFINITY];
        multiply(&mut g, &Factor::new(factor(1e10), Towards::Nearest));
        assert_eq!(g, [f64::MAX, -f64::MAX, f64::INFINITY]);
    }

    /// A factor that no `f64` holds.
    #[test]
    fn factors_of_any_exponent() {
        let tiny = Real::ONE.times_power_of_two(-1100).round(i32::MIN / 4, Towards::Nearest);
        let mut g = [2f64.powi(1000), -1.5 * 2f64.powi(30), 2f64.powi(25), 0.0];
        multiply(&mut g, &Factor::new(tiny, Towards::Nearest));
        assert_eq!(g, [2f64.powi(-100), -f64::from_bits(24), 0.0, 0.0].map(|x: f64| x));
    }
}
