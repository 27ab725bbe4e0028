//! Kinds of data that a sum may stumble over.

use super::Random;

/// What elements are like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distribution {
    /// Uniform in [-m, m).
    Uniform(f32),
    /// Any finite bit pattern: all exponents, subnormals and signed zeros.
    Bits,
    /// Subnormals only.
    Subnormal,
    /// Tiny everywhere but for one huge element.
    Spike,
    /// Magnitudes 1e30, 1e-30, 1 in turn.
    Alternating,
    /// All equal.
    Constant(f32),
}

/// One of each kind, and magnitudes over the whole range.
pub const DISTRIBUTIONS: [Distribution; 12] = [
    Distribution::Uniform(1.0),
    Distribution::Uniform(1e-38),
    Distribution::Uniform(1e-30),
    Distribution::Uniform(1e-5),
    Distribution::Uniform(1e20),
    Distribution::Uniform(1e30),
    Distribution::Uniform(3e38),
    Distribution::Bits,
    Distribution::Subnormal,
    Distribution::Spike,
    Distribution::Alternating,
    Distribution::Constant(0.1),
];

/// Elements of a kind, other ones for each length and seed.
pub fn data(kind: Distribution, len: usize, seed: u64) -> Vec<f32> {
    let mut random = Random(seed ^ (len as u64) << 32);
    let spike = if len == 0 { 0 } else { random.bits() as usize % len };
    let mut one = |i: usize| match kind {
        Distribution::Uniform(m) => random.unit() * m,
        Distribution::Bits => loop {
            let value = f32::from_bits(random.bits() as u32);
            if value.is_finite() {
                break value;
            }
        },
        Distribution::Subnormal => f32::from_bits(random.bits() as u32 & 0x807f_ffff),
        Distribution::Spike if i == spike => -2.5e18,
        Distribution::Spike => random.unit() * 1e-8,
        Distribution::Alternating => random.unit() * [1e30, 1e-30, 1.0][i % 3],
        Distribution::Constant(c) => c,
    };
    (0..len).map(&mut one).collect()
}
