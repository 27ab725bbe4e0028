//! Numbers with a seed.

/// SplitMix64 (Steele, Lea and Flood 2014): the same numbers everywhere.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to below `n`, which is less than 2^32.
    pub fn below(&mut self, n: usize) -> usize {
        (((self.bits() >> 32) * n as u64) >> 32) as usize
    }

    /// Puts things in another order.
    pub fn shuffle<T>(&mut self, things: &mut [T]) {
        for i in (1..things.len()).rev() {
            things.swap(i, self.bits() as usize % (i + 1));
        }
    }

    /// Uniform in [-1, 1), with 24 bits.
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// Uniform in [-1, 1), with 53 bits.
    pub fn unit_f64(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / 2f64.powi(52) - 1.0
    }

    /// Of either sign, with an exponent field from `from` to before `to`; 0 and subnormals have field 0.
    pub fn value_f64(&mut self, from: usize, to: usize) -> f64 {
        let (sign, field) = (self.bits() & (1 << 63), from + self.below(to - from));
        f64::from_bits(sign | ((field as u64) << 52) | (self.bits() >> 12))
    }
}
