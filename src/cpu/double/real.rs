//! Scalars of a clip of `f64` gradients in integers: [`crate::real`] with 64 bits for 32.

/// `(mantissa + f) * 2^exponent` with `f` in `[0, 1)`, `f > 0` exactly when `sticky`. The mantissa has
/// its top bit set; zero is mantissa 0.
///
/// After a [`multiply`](Real::multiply) of something sticky, `f` may reach 3, an error of `2^-61`; the
/// value is never below `mantissa * 2^exponent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Real {
    pub(super) mantissa: u64,
    pub(super) exponent: i32,
    pub(super) sticky: bool,
}

/// `mantissa * 2^exponent`, at most 53 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rounded {
    pub(super) mantissa: u64,
    pub(super) exponent: i32,
}

/// Where a value is rounded to that is not representable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Towards {
    /// The nearest one, ties to even.
    Nearest,
    Zero,
    Infinity,
}

/// Exponent of the smallest `f64`.
pub(super) const F64_MIN_EXPONENT: i32 = -1074;
/// For [`Real::round`]: 53 bits at any exponent.
pub(super) const NO_MIN_EXPONENT: i32 = -1 << 28;
/// Bits of an `f64` mantissa, and those of a [`Real`] below them.
const BITS: u32 = 53;
const SPARE: i32 = 64 - BITS as i32;

/// Mantissa and exponent of a finite magnitude given by its bits: `m * 2^e`.
pub(super) fn parts(magnitude: u64) -> (u64, i32) {
    let field = (magnitude >> 52).max(1);
    (magnitude - ((field - 1) << 52), field as i32 - 1075)
}

/// `value / 2^by`, with whether it is to be rounded up; `by` may be anything from 0.
pub(super) fn drop_bits(value: u128, by: u32, sticky: bool, towards: Towards) -> u128 {
    let kept = value.checked_shr(by).unwrap_or(0);
    let rest = value ^ kept.checked_shl(by).unwrap_or(0);
    let up = match towards {
        Towards::Zero => false,
        Towards::Infinity => sticky || rest != 0,
        Towards::Nearest => {
            let half = if by == 0 || by > 128 { 0 } else { 1 << (by - 1) };
            half != 0 && (rest > half || (rest == half && (sticky || kept & 1 == 1)))
        }
    };
    kept + u128::from(up)
}

impl Real {
    pub(super) const ZERO: Real = Real { mantissa: 0, exponent: 0, sticky: false };
    pub(super) const ONE: Real = Real { mantissa: 1 << 63, exponent: -63, sticky: false };

    /// `value * 2^exponent`, the bits below the 64 highest kept as stickiness.
    pub(super) fn new(value: u128, exponent: i32, sticky: bool) -> Real {
        if value == 0 {
            return Real { sticky, ..Real::ZERO };
        }
        let drop = 64 - value.leading_zeros() as i32;
        let (mantissa, lost) = if drop > 0 {
            let kept = value >> drop;
            (kept as u64, kept << drop != value)
        } else {
            ((value as u64) << -drop, false)
        };
        Real { mantissa, exponent: exponent + drop, sticky: sticky || lost }
    }

    /// The magnitude of a finite `f64`.
    pub(super) fn from_f64(value: f64) -> Real {
        let (mantissa, exponent) = parts(value.abs().to_bits());
        Real::new(mantissa.into(), exponent, false)
    }

    /// The root of `value * 2^exponent`, exponent even.
    pub(super) fn square_root(value: u128, exponent: i32, sticky: bool) -> Real {
        if value == 0 {
            return Real::ZERO;
        }
        // 127 or 128 bits, by an even shift, so that the root has 64.
        let up = value.leading_zeros() & !1;
        let operand = value << up;
        let root = operand.isqrt();
        let sticky = sticky || root * root != operand;
        Real { mantissa: root as u64, exponent: (exponent - up as i32) / 2, sticky }
    }

    pub(super) fn multiply(self, other: Real) -> Real {
        let product = u128::from(self.mantissa) * u128::from(other.mantissa);
        match product {
            0 => Real::ZERO,
            _ => Real::new(product, self.exponent + other.exponent, self.sticky || other.sticky),
        }
    }

    pub(super) fn times_power_of_two(self, power: i32) -> Real {
        Real { exponent: self.exponent + power, ..self }
    }

    /// A value that is not below this one, for `units` of its lowest bit that it may be short of: not sticky.
    pub(super) fn raised(self, units: u64) -> Real {
        let units = if self.sticky { units.max(1) } else { units };
        Real::new(u128::from(self.mantissa) + u128::from(units), self.exponent, false)
    }

    /// To 53 bits; fewer where the exponent would fall below `least`.
    pub(super) fn round(self, least: i32, towards: Towards) -> Rounded {
        let exponent = (self.exponent + SPARE).max(least);
        if self.mantissa == 0 {
            return Rounded { mantissa: 0, exponent: least };
        }
        let shift = exponent - self.exponent;
        let kept = drop_bits(self.mantissa.into(), shift as u32, self.sticky, towards) as u64;
        match kept >> BITS {
            0 => Rounded { mantissa: kept, exponent },
            _ => Rounded { mantissa: kept >> 1, exponent: exponent + 1 },
        }
    }
}

impl Rounded {
    /// The same value, exactly.
    pub(super) fn to_real(self) -> Real {
        Real::new(self.mantissa.into(), self.exponent, false)
    }

    /// `self / divisor`, divisor not zero.
    pub(super) fn quotient(self, divisor: Rounded) -> Real {
        let (a, b) = (self.to_real(), divisor.to_real());
        let (dividend, by) = (u128::from(a.mantissa) << 63, u128::from(b.mantissa));
        Real::new(dividend / by, a.exponent - b.exponent - 63, dividend % by != 0)
    }

    pub(super) fn add(self, other: Rounded) -> Real {
        let (x, y) = (self.to_real(), other.to_real());
        if x.mantissa == 0 || y.mantissa == 0 {
            return if x.mantissa == 0 { y } else { x };
        }
        let (large, small) = if x.exponent >= y.exponent { (x, y) } else { (y, x) };
        let down = (large.exponent - small.exponent) as u32;
        let wide = u128::from(small.mantissa) << 63;
        let moved = wide.checked_shr(down).unwrap_or(0);
        let lost = moved.checked_shl(down).unwrap_or(0) != wide;
        Real::new((u128::from(large.mantissa) << 63) + moved, large.exponent - 63, lost)
    }

    /// Whether `self > other`.
    pub(super) fn exceeds(self, other: Rounded) -> bool {
        let (x, y) = (self.to_real(), other.to_real());
        if x.mantissa == 0 || y.mantissa == 0 {
            return x.mantissa > y.mantissa;
        }
        (x.exponent, x.mantissa) > (y.exponent, y.mantissa)
    }

    pub(super) fn larger(self, other: Rounded) -> Rounded {
        if self.exceeds(other) { self } else { other }
    }

    /// The `f64` equal to a value rounded with [`F64_MIN_EXPONENT`]; infinity above the largest.
    pub(super) fn to_f64(self) -> f64 {
        if self.mantissa >> (BITS - 1) == 0 {
            return f64::from_bits(self.mantissa);
        }
        match self.exponent + 1075 {
            2047.. => f64::INFINITY,
            field => f64::from_bits(((field as u64) << 52) | (self.mantissa & ((1 << 52) - 1))),
        }
    }

    /// The `f64` equal to it, if there is a normal one, or it is 0.
    pub(super) fn as_normal(self) -> Option<f64> {
        let Real { mantissa, exponent, .. } = self.to_real();
        let field = exponent + 1075 + SPARE;
        match mantissa {
            0 => Some(0.0),
            _ if (1..2047).contains(&field) => {
                Some(f64::from_bits(((field as u64) << 52) | ((mantissa >> SPARE) & ((1 << 52) - 1))))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hardware rounds to nearest-even too.
    #[test]
    fn products_sums_quotients_and_roots_round_as_hardware_does() {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let bits = state ^ (state >> 29);
            f64::from_bits(
                ((900 + (bits >> 40) % 240) << 52) | (bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 12),
            )
        };
        let exact = |x: f64| Real::from_f64(x).round(NO_MIN_EXPONENT, Towards::Nearest);
        let round = |r: Real| r.round(F64_MIN_EXPONENT, Towards::Nearest).to_f64();
        for _ in 0..100_000 {
            let (a, b) = (next(), next());
            assert_eq!(round(Real::from_f64(a).multiply(Real::from_f64(b))), a * b);
            assert_eq!(round(exact(a).add(exact(b))), a + b);
            assert_eq!(round(exact(a).quotient(exact(b))), a / b);
            let (mantissa, exponent) = parts(a.to_bits());
            let odd = exponent.rem_euclid(2);
            let root = Real::square_root(u128::from(mantissa) << odd, exponent - odd, false);
            assert_eq!(round(root), a.sqrt());
            assert_eq!(exact(a).as_normal(), Some(a));
            assert_eq!(exact(a).exceeds(exact(b)), a > b);
        }
    }

    #[test]
    fn small_values_round_once_to_subnormals() {
        let tiny = Real::from_f64(3.0).times_power_of_two(-1076);
        let round = |towards| tiny.round(F64_MIN_EXPONENT, towards).to_f64();
        assert_eq!(round(Towards::Nearest), f64::from_bits(1));
        assert_eq!(round(Towards::Zero), 0.0);
        assert_eq!(round(Towards::Infinity), f64::from_bits(1));
        let tie = Real::ONE.times_power_of_two(-1075);
        assert_eq!(tie.round(F64_MIN_EXPONENT, Towards::Nearest).to_f64(), 0.0);
        let least = Real::ONE.times_power_of_two(-5000).round(F64_MIN_EXPONENT, Towards::Infinity);
        assert_eq!(least.to_f64(), f64::from_bits(1));
        assert_eq!(
            Real::ONE.times_power_of_two(1024).round(F64_MIN_EXPONENT, Towards::Nearest).to_f64(),
            f64::INFINITY
        );
        assert_eq!(
            Real::ONE.times_power_of_two(1024).round(NO_MIN_EXPONENT, Towards::Zero).as_normal(),
            None
        );
    }
}
