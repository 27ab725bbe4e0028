//! Norms with any p: the twin of `shaders/reduce_power.wgsl` and `shaders/shared/combine_power.wgsl`,
//! in `f64` and rounded to `f32` only where the records hold it.
//!
//! A record holds the largest magnitude's bits in its exponent and, as `f32` bits in the lowest
//! word of its mantissa, the sum of (|g| / largest)^p.

use crate::layout::{Partial, Sum};

use super::element::Element;
use crate::real::Real;

const INFINITY_BITS: u32 = 0x7f80_0000;

/// Elements above `most`, bits of a magnitude, are not finite.
pub(crate) fn reduce<T: Element>(chunk: &[T], p: f32, most: u32) -> Partial {
    let magnitudes = || chunk.iter().map(|e| e.f32_bits() & 0x7fff_ffff);
    let finite = || magnitudes().filter(|&m| m <= most);
    let largest = finite().max().unwrap_or(0);
    let powers: f64 = finite().map(|m| power_of_ratio(m, largest, p)).sum();
    let non_finite = magnitudes().filter(|&m| m > most).count() as u32;
    let nan = u32::from(magnitudes().any(|m| m > INFINITY_BITS)) << 31;
    Partial { lo: (powers as f32).to_bits(), hi: 0, exponent: largest, non_finite: non_finite | nan }
}

/// The mantissa of sums brought to a common largest magnitude.
pub(crate) fn add(items: impl Iterator<Item = Sum>, largest: u32, p: f32) -> [u32; 3] {
    let one = |s: Sum| f64::from(f32::from_bits(s.mantissa[0])) * power_of_ratio(s.exponent, largest, p);
    [(items.map(one).sum::<f64>() as f32).to_bits(), 0, 0]
}

/// largest * powers^(1/p).
pub(crate) fn norm(sum: &Sum, p: f32) -> Real {
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

/// (magnitude / largest)^p, both as f32 bits.
fn power_of_ratio(magnitude: u32, largest: u32, p: f32) -> f64 {
    let value = |bits| f64::from(f32::from_bits(bits));
    if magnitude == 0 { 0.0 } else { (value(magnitude) / value(largest)).powf(f64::from(p)) }
}
