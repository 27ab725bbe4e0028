//! Gradients that other languages make too: a hash of the element's place in its set. `benches/peers/arm.py`
//! has the same, and the comparison checks that both come to the same norm.

use rayon::prelude::*;

/// Elements that a thread makes or adds at once.
pub(crate) const BLOCK: usize = 1 << 16;

/// Uniform in [-1, 1), a multiple of 2^-23: squares are exact in f64, and so are halves in f32. The hash is
/// lowbias32 of Chris Wellons' hash-prospector.
pub(crate) fn value(i: u64) -> f32 {
    let mut x = (i as u32) ^ ((i >> 32) as u32).wrapping_mul(0x9e37_79b9);
    x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^= x >> 16;
    (x >> 8) as f32 / (1u32 << 23) as f32 - 1.0
}

/// The element in its type: a `bf16` is the upper half of an `f32`.
pub(crate) fn typed(value: f32, bf16: bool) -> f32 {
    if bf16 { f32::from_bits(value.to_bits() & 0xffff_0000) } else { value }
}

/// The bits of what is one already.
pub(crate) fn bf16_bits(value: f32) -> u16 {
    (value.to_bits() >> 16) as u16
}

pub(crate) fn from_bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Elements `first` and on of a set.
pub(crate) fn fill(to: &mut [f32], first: u64, bf16: bool) {
    to.par_chunks_mut(BLOCK).enumerate().for_each(|(i, block)| {
        let first = first + (i * BLOCK) as u64;
        for (i, value_) in (first..).zip(block) {
            *value_ = typed(value(i), bf16);
        }
    });
}

/// In f64, the same at every number of threads.
pub(crate) fn sum_of_squares(values: &[f32]) -> f64 {
    let block = |block: &[f32]| block.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
    values.par_chunks(BLOCK).map(block).collect::<Vec<f64>>().iter().sum()
}
