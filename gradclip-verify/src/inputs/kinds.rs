//! Kinds of data that a sum may stumble over.

use super::Random;

/// What elements are like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
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
pub const KINDS: [Kind; 12] = [
    Kind::Uniform(1.0),
    Kind::Uniform(1e-38),
    Kind::Uniform(1e-30),
    Kind::Uniform(1e-5),
    Kind::Uniform(1e20),
    Kind::Uniform(1e30),
    Kind::Uniform(3e38),
    Kind::Bits,
    Kind::Subnormal,
    Kind::Spike,
    Kind::Alternating,
    Kind::Constant(0.1),
];

/// Elements of a kind, other ones for each length and seed.
pub fn data(kind: Kind, len: usize, seed: u64) -> Vec<f32> {
    let mut random = Random(seed ^ (len as u64) << 32);
    let spike = if len == 0 { 0 } else { random.bits() as usize % len };
    let mut one = |i: usize| match kind {
        Kind::Uniform(m) => random.unit() * m,
        Kind::Bits => loop {
            let value = f32::from_bits(random.bits() as u32);
            if value.is_finite() {
                break value;
            }
        },
        Kind::Subnormal => f32::from_bits(random.bits() as u32 & 0x807f_ffff),
        Kind::Spike if i == spike => -2.5e18,
        Kind::Spike => random.unit() * 1e-8,
        Kind::Alternating => random.unit() * [1e30, 1e-30, 1.0][i % 3],
        Kind::Constant(c) => c,
    };
    (0..len).map(&mut one).collect()
}
