//! What can be done with lanes, whatever registers hold them.

use half::{bf16, f16};

/// Number of lanes.
pub(crate) const LANES: usize = 16;

/// The operations that a chunk's sum needs, lane by lane.
pub(crate) trait Lanes: Copy {
    /// As many `u64`, one a lane.
    type Wide: Copy;
    /// Whether the processor multiplies and adds `f64` in one instruction.
    const FUSES: bool;
    fn load(values: &[u32; LANES]) -> Self;
    fn store(self, to: &mut [u32; LANES]);
    /// The `f32` equal to each `bf16`.
    #[inline(always)]
    fn load_bf16(values: &[u16; LANES]) -> Self {
        Self::load(&values.map(|bits| u32::from(bits) << 16))
    }
    /// The `f32` equal to each `f16`; a NaN may become another one.
    #[inline(always)]
    fn load_f16(values: &[u16; LANES]) -> Self {
        Self::load(&values.map(widened_f16))
    }
    /// The `bf16` nearest to each `f32`, ties to even.
    #[inline(always)]
    fn store_bf16(self, to: &mut [u16; LANES]) {
        self.store_each(to, |value| bf16::from_f32(value).to_bits());
    }
    /// The `f16` nearest to each `f32`, ties to even.
    #[inline(always)]
    fn store_f16(self, to: &mut [u16; LANES]) {
        self.store_each(to, |value| f16::from_f32(value).to_bits());
    }
    #[inline(always)]
    fn store_each(self, to: &mut [u16; LANES], narrow: impl Fn(f32) -> u16) {
        let mut lanes = [0; LANES];
        self.store(&mut lanes);
        to.iter_mut().zip(lanes).for_each(|(to, bits)| *to = narrow(f32::from_bits(bits)));
    }
    /// The lanes are `f32`: their products, rounded once.
    fn times(self, factor: Self) -> Self;
    /// The same, rounded towards zero.
    #[inline(always)]
    fn times_toward_zero(self, factor: Self) -> Self {
        let [mut a, mut b] = [[0; LANES]; 2];
        self.store(&mut a);
        factor.store(&mut b);
        let exact = |i: usize| f64::from(f32::from_bits(a[i])) * f64::from(f32::from_bits(b[i]));
        Self::load(&std::array::from_fn(|i| toward_zero(exact(i)).to_bits()))
    }
    fn splat(value: u32) -> Self;
    fn and(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn max(self, other: Self) -> Self;
    fn shl<const N: u32>(self) -> Self;
    fn shr<const N: u32>(self) -> Self;
    /// Right by a different amount in each lane; 32 and more give 0.
    fn shr_by(self, amounts: Self) -> Self;
    /// The lanes are `f32`: their products rounded towards zero, as `i32`, which they have to fit.
    fn product(self, factor: Self) -> Self;
    #[inline(always)]
    fn largest(self) -> u32 {
        let mut lanes = [0; LANES];
        self.store(&mut lanes);
        lanes.into_iter().fold(0, u32::max)
    }
    fn all_at_least(self, limit: u32) -> bool;
    fn zeros() -> Self::Wide;
    fn add_to(self, sum: Self::Wide) -> Self::Wide;
    /// The lanes are `i32`.
    fn add_square_to(self, sum: Self::Wide) -> Self::Wide;
    /// `sum + (self * factor >> by)`; 64 and more give 0.
    fn add_product_to(self, factor: Self, by: Self, sum: Self::Wide) -> Self::Wide;
    /// `total + (sum << left >> by)`; 64 and more give 0.
    fn add_shifted(sum: Self::Wide, left: u32, by: Self, total: Self::Wide) -> Self::Wide;
    fn sum(sum: Self::Wide) -> u64;
    fn each(sums: Self::Wide) -> [u64; LANES];
    /// Asks for the line of memory that begins there, which will be read soon.
    #[inline(always)]
    fn prefetch<T>(_: &T) {}
}

/// The bits of the `f32` equal to an `f16`. `half` would look for a conversion instruction at every element.
#[inline(always)]
pub(super) fn widened_f16(half: u16) -> u32 {
    let half = u32::from(half);
    let (sign, bits) = ((half & 0x8000) << 16, half & 0x7fff);
    let normal = (bits << 13) + (112 << 23);
    let top = 31 - (bits | 1).leading_zeros();
    let subnormal = ((103 + top) << 23) | ((bits << (23 - top.min(23))) & 0x7f_ffff);
    let special = 0x7f80_0000 | ((bits & 0x3ff) << 13);
    let small = if bits == 0 { 0 } else { subnormal };
    let finite = if bits >= 0x400 { normal } else { small };
    sign | if bits >= 0x7c00 { special } else { finite }
}

/// The `f32` nearest to zero of the two on either side of an exact product.
#[inline(always)]
pub(crate) fn toward_zero(exact: f64) -> f32 {
    let near = exact as f32;
    // Conversion rounds to nearest, infinity included; one step back is enough.
    f32::from_bits(near.to_bits() - u32::from(f64::from(near.abs()) > exact.abs()))
}

/// What is done lane by lane.
pub(crate) trait ByLanes {
    type Output;
    /// Must be `#[inline(always)]`, to be compiled for the processor's registers.
    fn run<L: Lanes>(self) -> Self::Output;
}

/// A line of a cache.
pub(crate) type Line = [u8; 64];
