//! Norms with any p: the twin of `shaders/reduce_power.wgsl` and `shaders/shared/combine_power.wgsl`,
//! in `f64` and rounded to `f32` only where the records hold it.
//!
//! A record holds the largest magnitude's bits in its exponent and, as `f32` bits in the lowest
//! word of its mantissa, the sum of (|g| / largest)^p.

mod fast;

use crate::combine::power_of_ratio;
use crate::layout::Partial;

use super::element::Element;
use super::lanes::{Bits, INFINITY_BITS, by_lanes};
use fast::{Look, Powers, Seen, bound};

/// Elements above `most`, bits of a magnitude, are not finite.
pub(crate) fn reduce<T: Element>(chunk: &[T], p: f32, most: u32) -> Partial {
    let Seen { largest, top, beyond } = by_lanes(Look { chunk: T::bits(chunk), most });
    let near = if beyond == 0 { near_sum(chunk, p, largest) } else { None };
    let powers = near.unwrap_or_else(|| sum_of_powers(chunk, p, most, largest));
    let nan = u32::from(top > INFINITY_BITS) << 31;
    Partial { lo: powers.to_bits(), hi: 0, exponent: largest, non_finite: beyond | nan }
}

/// The sum of the powers of ratios to the largest, in `f64` one after the other, rounded to `f32`.
fn sum_of_powers<T: Element>(chunk: &[T], p: f32, most: u32, largest: u32) -> f32 {
    let finite = T::bits(chunk).iter().map(|e| e.magnitude()).filter(|&m| m <= most);
    finite.map(|m| power_of_ratio(m, largest, p)).sum::<f64>() as f32
}

/// The same by lanes, where it rounds to the same whatever its error: of ten thousand sums all but a few.
fn near_sum<T: Element>(chunk: &[T], p: f32, largest: u32) -> Option<f32> {
    if largest == 0 {
        return Some(0.0);
    }
    let p = f64::from(p);
    let sum = by_lanes(Powers { chunk: T::bits(chunk), largest: f32::from_bits(largest), p });
    let error = sum * bound(chunk.len(), p);
    let [least, greatest] = [sum - error, sum + error].map(|sum| sum as f32);
    (least == greatest).then_some(least)
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;
    use crate::cpu::random::words;

    /// Sums by lanes have the bits of the definition, and few are too near the middle of two `f32` to tell.
    #[test]
    fn sums_by_lanes_are_those_of_the_definition() {
        let mut word = words(5);
        let mut unclear = 0;
        for p in [0.5f32, 1.5, 2.5, 3.0, 4.0, 0.01, 2.6, 17.0] {
            for len in [1, 15, 16, 1000, 16_384].repeat(8) {
                // Exponents over so many powers of two, signs and mantissas of every kind.
                let spread = 1 + word() % 12;
                let mut one = || (word() & 0x807f_ffff) | ((127 - word() % spread) << 23);
                let chunk: Vec<f32> = (0..len).map(|_| f32::from_bits(one())).collect();
                unclear += u32::from(check(&chunk, p));
                let halves: Vec<f16> = chunk.iter().map(|&x| f16::from_f32(x * 16.0)).collect();
                unclear += u32::from(check(&halves, p));
            }
        }
        assert!(unclear <= 2, "{unclear} of 640");
    }

    /// Whether the sum is not clear.
    fn check<T: Element>(chunk: &[T], p: f32) -> bool {
        let largest = T::bits(chunk).iter().map(|e| e.magnitude()).max().unwrap_or(0);
        let right = sum_of_powers(chunk, p, INFINITY_BITS - 1, largest);
        let near = near_sum(chunk, p, largest);
        assert!(near.is_none_or(|near| near.to_bits() == right.to_bits()), "p {p}: {near:?} {right}");
        let whole = reduce(chunk, p, INFINITY_BITS - 1);
        assert_eq!((whole.lo, whole.exponent, whole.non_finite), (right.to_bits(), largest, 0));
        near.is_none()
    }

    #[test]
    fn what_is_not_finite_is_left_out() {
        let mut chunk = vec![1.0f32; 40];
        (chunk[3], chunk[39]) = (f32::INFINITY, f32::NAN);
        let partial = reduce(&chunk, 2.5, INFINITY_BITS - 1);
        assert_eq!((f32::from_bits(partial.lo), partial.exponent), (38.0, 1.0f32.to_bits()));
        assert_eq!(partial.non_finite, 2 | 1 << 31);
    }
}
