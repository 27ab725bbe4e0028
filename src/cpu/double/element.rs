//! Element types as `f64` and back.

use half::{bf16, f16};

use super::super::element::Element;

/// What an element type can hold: `mantissa * 2^exponent` with a mantissa below `2^bits` and an exponent
/// from `least`, up to `largest`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Format {
    pub(super) bits: u32,
    pub(super) least: i32,
    pub(super) largest: f64,
}

/// A type whose values are `f64` values.
pub(super) trait Wide: Copy + Send + Sync {
    const FORMAT: Format;

    /// The same value.
    fn to_double(self) -> f64;

    /// The same value again; `value` is one of this type, or NaN.
    fn from_double(value: f64) -> Self;

    /// The bits of the `f64` magnitude.
    #[inline(always)]
    fn magnitude(self) -> u64 {
        self.to_double().to_bits() & (u64::MAX >> 1)
    }
}

impl Wide for f64 {
    const FORMAT: Format = Format { bits: 53, least: -1074, largest: f64::MAX };

    #[inline(always)]
    fn to_double(self) -> f64 {
        self
    }

    #[inline(always)]
    fn from_double(value: f64) -> f64 {
        value
    }
}

impl Wide for f32 {
    const FORMAT: Format = Format { bits: 24, least: -149, largest: f32::MAX as f64 };

    #[inline(always)]
    fn to_double(self) -> f64 {
        f64::from(self)
    }

    #[inline(always)]
    fn from_double(value: f64) -> f32 {
        value as f32
    }
}

impl Wide for f16 {
    const FORMAT: Format = Format { bits: 11, least: -24, largest: 65504.0 };

    #[inline(always)]
    fn to_double(self) -> f64 {
        f64::from(f32::from_bits(self.f32_bits()))
    }

    #[inline(always)]
    fn from_double(value: f64) -> f16 {
        f16::from_f32(value as f32)
    }
}

impl Wide for bf16 {
    // 255 * 2^120.
    const FORMAT: Format = Format { bits: 8, least: -133, largest: 3.389_531_389_251_535_5e38 };

    #[inline(always)]
    fn to_double(self) -> f64 {
        f64::from(f32::from_bits(self.f32_bits()))
    }

    #[inline(always)]
    fn from_double(value: f64) -> bf16 {
        bf16::from_f32(value as f32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_comes_back_and_the_largest_is_named() {
        for bits in 0..=u16::MAX {
            let (a, b) = (f16::from_bits(bits), bf16::from_bits(bits));
            assert!(a.is_nan() || f16::from_double(a.to_double()).to_bits() == bits, "{bits:x}");
            assert!(b.is_nan() || bf16::from_double(b.to_double()).to_bits() == bits, "{bits:x}");
        }
        assert_eq!(f16::FORMAT.largest, f16::MAX.to_f64());
        assert_eq!(bf16::FORMAT.largest, bf16::MAX.to_f64());
    }
}
