//! Scalars of a clip in integers: the twin of `shaders/shared/real.wgsl` and `rounding.wgsl`.

/// `(mantissa + f) * 2^exponent` with `f` in `[0, 1)`, `f > 0` exactly when `sticky`. The
/// mantissa has its top bit set; zero is mantissa 0.
///
/// After a [`multiply`](Real::multiply) by something that is not a power of two, `f` may reach 2:
/// an error of `2^-31`, a hundredth of an `f32` ulp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Real {
    mantissa: u32,
    exponent: i32,
    sticky: bool,
}

/// The root of a number from 2^62 on, rounded down. That of its `f64` is never below: the `f64` of a square is off by 2^-53 of it,
/// its root by half as much, which rounds to the root of the square.
fn root_of(value: u64) -> u64 {
    let near = ((value as f64).sqrt() as i64 as u64).min(u32::MAX.into());
    if near * near > value { near - 1 } else { near }
}

/// `mantissa * 2^exponent`, at most 24 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rounded {
    pub(crate) mantissa: u32,
    pub(crate) exponent: i32,
}

/// Exponent of the smallest `f32`.
pub(crate) const F32_MIN_EXPONENT: i32 = -149;
/// For [`Real::round`]: 24 bits at any exponent.
pub(crate) const NO_MIN_EXPONENT: i32 = -100_000;

impl Real {
    pub(crate) const ZERO: Real = Real { mantissa: 0, exponent: 0, sticky: false };
    pub(crate) const ONE: Real = Real { mantissa: 1 << 31, exponent: -31, sticky: false };

    /// `value * 2^exponent`, the bits below the 32 highest kept as stickiness.
    pub(crate) fn new(value: u128, exponent: i32, sticky: bool) -> Real {
        if value == 0 {
            return Real { sticky, ..Real::ZERO };
        }
        let drop = 96 - value.leading_zeros() as i32;
        let (mantissa, lost) = if drop > 0 {
            let kept = value >> drop;
            (kept as u32, kept << drop != value)
        } else {
            ((value as u32) << -drop, false)
        };
        Real { mantissa, exponent: exponent + drop, sticky: sticky || lost }
    }

    /// A finite `f32` that is not negative.
    pub(crate) fn from_f32(value: f32) -> Real {
        let bits = value.to_bits();
        let field = (bits >> 23).max(1);
        Real::exact(bits - ((field - 1) << 23), field as i32 - 150)
    }

    /// `value * 2^exponent`.
    fn exact(value: u32, exponent: i32) -> Real {
        let up = value.leading_zeros();
        match value {
            0 => Real::ZERO,
            _ => Real { mantissa: value << up, exponent: exponent - up as i32, sticky: false },
        }
    }

    /// The root of `value * 2^exponent`, exponent even, value below `2^96`.
    pub(crate) fn square_root(value: u128, exponent: i32) -> Real {
        if value == 0 {
            return Real::ZERO;
        }
        // 63 or 64 bits, by an even shift, so that the root has 32. Shifts of 128 bits take several instructions.
        let (high, low) = ((value >> 64) as u64, value as u64);
        let (operand, drop, lost) = match high {
            0 => {
                let up = low.leading_zeros() & !1;
                (low << up, -(up as i32), false)
            }
            _ => {
                let drop = (65 - high.leading_zeros()) & !1;
                let kept = (high << (64 - drop)) | (low >> drop);
                (kept, drop as i32, kept << drop != low)
            }
        };
        let root = root_of(operand);
        Real {
            mantissa: root as u32,
            exponent: (exponent + drop) / 2,
            sticky: lost || root * root != operand,
        }
    }

    pub(crate) fn multiply(self, other: Real) -> Real {
        let product = u64::from(self.mantissa) * u64::from(other.mantissa);
        let sticky = self.sticky || other.sticky;
        match product {
            0 => Real::ZERO,
            _ => {
                // Mantissas have their top bits set, so that the product has 63 or 64.
                let drop = 32 - product.leading_zeros();
                let mantissa = (product >> drop) as u32;
                let lost = u64::from(mantissa) << drop != product;
                let exponent = self.exponent + other.exponent + drop as i32;
                Real { mantissa, exponent, sticky: sticky || lost }
            }
        }
    }

    pub(crate) fn times_power_of_two(self, power: i32) -> Real {
        Real { exponent: self.exponent + power, ..self }
    }

    /// To 24 bits, to nearest, ties to even; fewer where the exponent would fall below `least`.
    pub(crate) fn round(self, least: i32) -> Rounded {
        let exponent = (self.exponent + 8).max(least);
        let shift = exponent - self.exponent;
        if self.mantissa == 0 || shift > 32 {
            return Rounded { mantissa: 0, exponent: least };
        }
        let wide = u64::from(self.mantissa);
        let (kept, rest, half) = (wide >> shift, wide & ((1 << shift) - 1), 1u64 << (shift - 1));
        let up = rest > half || (rest == half && (self.sticky || kept & 1 == 1));
        match kept as u32 + u32::from(up) {
            0x100_0000 => Rounded { mantissa: 0x80_0000, exponent: exponent + 1 },
            mantissa => Rounded { mantissa, exponent },
        }
    }
}

impl Real {
    /// A share of 2^-bits of it, in units of the last of 32 bits, rounded down.
    pub(crate) fn share(self, bits: u32) -> u32 {
        self.mantissa >> bits
    }

    /// This and `by` units of the last of 32 bits more, rounded up. Zero stays.
    pub(crate) fn enlarged(self, by: u32) -> Real {
        if self.mantissa == 0 {
            return self;
        }
        match self.mantissa.overflowing_add(by) {
            (mantissa, false) => Real { mantissa, ..self },
            (rest, true) => Real {
                mantissa: (rest >> 1) + (1 << 31) + 1,
                exponent: self.exponent + 1,
                sticky: self.sticky,
            },
        }
    }

    /// To 24 bits, not above the value; fewer where the exponent would fall below `least`.
    pub(crate) fn round_down(self, least: i32) -> Rounded {
        let exponent = (self.exponent + 8).max(least);
        let shift = (exponent - self.exponent) as u32;
        match self.mantissa.checked_shr(shift) {
            None | Some(0) => Rounded { mantissa: 0, exponent: least },
            Some(mantissa) => Rounded { mantissa, exponent },
        }
    }

    /// To 24 bits, not below the value, although `f` may reach 2.
    pub(crate) fn round_up(self) -> Rounded {
        let whole = self.enlarged(if self.sticky { 2 } else { 0 });
        let (kept, lost) = (whole.mantissa >> 8, whole.mantissa & 0xff != 0);
        match kept + u32::from(lost) {
            0x100_0000 => Rounded { mantissa: 0x80_0000, exponent: whole.exponent + 9 },
            0 => Rounded { mantissa: 0, exponent: NO_MIN_EXPONENT },
            mantissa => Rounded { mantissa, exponent: whole.exponent + 8 },
        }
    }
}

/// The largest magnitude, as `f32` bits, that times `unscale` rounds to a finite `f32`: below
/// (2^25 - 1) * 2^103 / unscale, for from that product on values round to infinity.
pub(crate) fn largest_unscaled(unscale: f32) -> u32 {
    const LARGEST: u32 = 0x7f7f_ffff;
    if unscale <= 1.0 {
        return LARGEST;
    }
    let bits = unscale.to_bits();
    let (divisor, field) = (u64::from((bits & 0x7f_ffff) | 0x80_0000), bits >> 23);
    let dividend = ((1u64 << 25) - 1) << 30;
    // 32 bits, their top one set.
    let (quotient, rest) = (dividend / divisor, dividend % divisor);
    let below = quotient & 0xff != 0 || rest != 0;
    let found = ((381 - field) << 23) + ((quotient >> 8) as u32 & 0x7f_ffff);
    found - u32::from(!below)
}

impl Rounded {
    fn widen(self) -> Real {
        Real::exact(self.mantissa, self.exponent)
    }

    /// `self / divisor`, divisor not zero.
    pub(crate) fn quotient(self, divisor: Rounded) -> Real {
        let (a, b) = (self.widen(), divisor.widen());
        let dividend = u64::from(a.mantissa) << 29;
        let (q, rest) = (dividend / u64::from(b.mantissa), dividend % u64::from(b.mantissa));
        Real::new(u128::from(q), a.exponent - b.exponent - 29, rest != 0)
    }

    pub(crate) fn add(self, other: Rounded) -> Real {
        let (x, y) = (self.widen(), other.widen());
        if x.mantissa == 0 || y.mantissa == 0 {
            return if x.mantissa == 0 { y } else { x };
        }
        let (large, small) = if x.exponent >= y.exponent { (x, y) } else { (y, x) };
        let down = (large.exponent - small.exponent) as u32;
        let moved = if down > 64 { 0 } else { (u128::from(small.mantissa) << 64) >> down };
        let total = (u128::from(large.mantissa) << 64) + moved;
        Real::new(total, large.exponent - 64, down > 64)
    }

    /// Whether `self > other`.
    pub(crate) fn exceeds(self, other: Rounded) -> bool {
        let (x, y) = (self.widen(), other.widen());
        if x.mantissa == 0 || y.mantissa == 0 {
            return x.mantissa > y.mantissa;
        }
        (x.exponent, x.mantissa) > (y.exponent, y.mantissa)
    }

    /// The same value, exactly.
    pub(crate) fn to_real(self) -> Real {
        self.widen()
    }

    /// The `f32` equal to a value rounded with [`F32_MIN_EXPONENT`]; infinity above the largest.
    pub(crate) fn to_f32(self) -> f32 {
        if self.mantissa < 0x80_0000 {
            return f32::from_bits(self.mantissa);
        }
        match self.exponent + 150 {
            255.. => f32::INFINITY,
            field => f32::from_bits(((field as u32) << 23) | (self.mantissa & 0x7f_ffff)),
        }
    }

    /// The same value as an `f64`, exactly.
    pub(crate) fn to_f64(self) -> f64 {
        f64::from(self.mantissa) * 2f64.powi(self.exponent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::words;

    /// Hardware rounds products once, so it knows which are finite.
    #[test]
    fn the_largest_magnitude_is_the_last_whose_product_is_finite() {
        let mut state = 7u64;
        let mut scales = vec![1.0f32.next_up(), 2.0, 3.0, 1000.0, f32::MAX, 1.5e38, 2f32.powi(127)];
        scales.extend((0..10_000).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            f32::from_bits(0x3f80_0001 + ((state >> 33) as u32) % 0x3fff_fffe)
        }));
        for unscale in scales {
            let bits = largest_unscaled(unscale);
            let (last, next) = (f32::from_bits(bits), f32::from_bits(bits + 1));
            assert!((last * unscale).is_finite() && (next * unscale).is_infinite(), "{unscale:e}: {last:e}");
        }
        for small in [1.0, 0.999, 1e-30, f32::from_bits(1)] {
            assert_eq!(largest_unscaled(small), f32::MAX.to_bits());
        }
    }

    #[test]
    fn directions_enclose_the_value() {
        let mut state = 3u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state
        };
        for _ in 0..100_000 {
            let value = u128::from(next()) << (next() % 30) >> (next() % 40);
            let real = Real::new(value, -40, false);
            let (down, up) = (real.round_down(NO_MIN_EXPONENT), real.round_up());
            // 24 bits fit an f64, and so does a comparison of the 64 bits through integers.
            let exact =
                |r: Rounded| u128::from(r.mantissa) << (r.exponent + 40).max(0) >> (-r.exponent - 40).max(0);
            assert!(value == 0 || r_fits(down) && r_fits(up));
            assert!(exact(down) <= value && exact(up) >= value, "{value}");
            assert!(exact(up) - exact(down) <= (value >> 22) + 4, "{value}");
        }
    }

    fn r_fits(r: Rounded) -> bool {
        r.mantissa > 0 && r.mantissa < 1 << 24
    }

    /// Roots and products are those of integers of 128 bits.
    #[test]
    fn roots_and_products_are_exact() {
        let mut word = words(9);
        let mut wide = || u128::from(word()) << 64 | u128::from(word()) << 32 | u128::from(word());
        for step in 0..200_000u32 {
            let value = match step {
                0..96 => 1 << step,
                96..192 => (1 << (step - 95)) - 1,
                _ => wide() >> (step % 96),
            };
            // Squares and what lies next to them.
            let root = (value >> 40).isqrt();
            for value in [value, root * root, root * root + 1, (root * root).saturating_sub(1)] {
                check_root(value);
            }
            // Squares of 64 bits, exact but for what lies below them.
            let square = u128::from(wide() as u32 | 1 << 31).pow(2);
            for value in
                [square, square - 1, square << 8, (square << 8) + 1, (square << 30) - 1, (square << 30) + 1]
            {
                check_root(value);
            }
            let (a, b) = (wide() as u32 | 1 << 31, wide() as u32 | 1 << 31);
            let [x, y] = [a, b].map(|mantissa| Real { mantissa, exponent: -7, sticky: false });
            assert_eq!(x.multiply(y), Real::new(u128::from(a) * u128::from(b), -14, false));
        }
        assert_eq!(
            [u64::MAX, 1 << 62, (1 << 62) - 1 + (1 << 62)].map(root_of),
            [u32::MAX.into(), 1 << 31, 3_037_000_499]
        );
    }

    fn check_root(value: u128) {
        let real = Real::square_root(value, 0);
        if value == 0 {
            return assert_eq!(real, Real::ZERO);
        }
        // The operand has 63 or 64 bits by an even power of two; the root is rounded down, and sticky if not exact.
        assert!(real.mantissa >> 31 == 1);
        let root = u128::from(real.mantissa);
        let power = 2 * real.exponent;
        match power {
            0.. => {
                assert!((root * root) << power <= value && value < ((root + 1) * (root + 1)) << power);
                assert_eq!(real.sticky, (root * root) << power != value, "{value}");
            }
            _ => {
                let value = value << -power;
                assert!(root * root <= value && value < (root + 1) * (root + 1));
                assert_eq!(real.sticky, root * root != value);
            }
        }
    }
}
