//! Sixteen `u32` lanes, as registers of whatever width the processor has.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
mod bits;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
#[cfg(test)]
mod tests;

use half::{bf16, f16};

pub(crate) use bits::{Bf16Bits, Bits, F16Bits, INFINITY_BITS};

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
        Self::load(&values.map(|bits| F16Bits(bits).f32_bits()))
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

/// The `f32` nearest to zero of the two beside an exact product.
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

/// Runs work in the widest registers that the processor has.
pub(crate) fn by_lanes<W: ByLanes>(work: W) -> W::Output {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the features that the function is compiled for were just detected.
            return unsafe { avx512::run(work) };
        }
        if avx2::is_detected() {
            // SAFETY: as above.
            return unsafe { avx2::run(work) };
        }
    }
    #[cfg(target_arch = "aarch64")]
    return work.run::<neon::Neon>();
    #[cfg(not(target_arch = "aarch64"))]
    work.run::<Portable>()
}

/// A line of a cache.
pub(crate) type Line = [u8; 64];

/// For any processor.
#[cfg(any(test, not(target_arch = "aarch64")))]
#[derive(Clone, Copy)]
pub(crate) struct Portable([u32; LANES]);

#[cfg(any(test, not(target_arch = "aarch64")))]
impl Portable {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(u32, u32) -> u32) -> Self {
        Portable(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }
}

#[cfg(any(test, not(target_arch = "aarch64")))]
impl Lanes for Portable {
    type Wide = [u64; LANES];
    const FUSES: bool = false;

    #[inline(always)]
    fn load(values: &[u32; LANES]) -> Self {
        Portable(*values)
    }

    #[inline(always)]
    fn store(self, to: &mut [u32; LANES]) {
        *to = self.0;
    }

    #[inline(always)]
    fn splat(value: u32) -> Self {
        Portable([value; LANES])
    }

    #[inline(always)]
    fn and(self, other: Self) -> Self {
        self.zip(other, |a, b| a & b)
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, u32::wrapping_sub)
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.zip(other, u32::max)
    }

    #[inline(always)]
    fn shl<const N: u32>(self) -> Self {
        Portable(self.0.map(|a| a << N))
    }

    #[inline(always)]
    fn shr<const N: u32>(self) -> Self {
        Portable(self.0.map(|a| a >> N))
    }

    #[inline(always)]
    fn shr_by(self, amounts: Self) -> Self {
        self.zip(amounts, |a, n| if n < 32 { a >> n } else { 0 })
    }

    #[inline(always)]
    fn times(self, factor: Self) -> Self {
        self.zip(factor, |a, b| (f32::from_bits(a) * f32::from_bits(b)).to_bits())
    }

    #[inline(always)]
    fn product(self, factor: Self) -> Self {
        self.zip(factor, |a, b| (f32::from_bits(a) * f32::from_bits(b)) as i32 as u32)
    }

    #[inline(always)]
    fn all_at_least(self, limit: u32) -> bool {
        self.0.iter().all(|&a| a >= limit)
    }

    #[inline(always)]
    fn zeros() -> [u64; LANES] {
        [0; LANES]
    }

    #[inline(always)]
    fn add_to(self, sum: [u64; LANES]) -> [u64; LANES] {
        std::array::from_fn(|i| sum[i] + u64::from(self.0[i]))
    }

    #[inline(always)]
    fn add_square_to(self, sum: [u64; LANES]) -> [u64; LANES] {
        std::array::from_fn(|i| sum[i] + i64::from(self.0[i] as i32).pow(2) as u64)
    }

    #[inline(always)]
    fn add_product_to(self, factor: Self, by: Self, sum: [u64; LANES]) -> [u64; LANES] {
        std::array::from_fn(|i| {
            let product = u64::from(self.0[i]) * u64::from(factor.0[i]);
            sum[i] + product.checked_shr(by.0[i]).unwrap_or(0)
        })
    }

    #[inline(always)]
    fn add_shifted(sum: [u64; LANES], left: u32, by: Self, total: [u64; LANES]) -> [u64; LANES] {
        std::array::from_fn(|i| total[i] + (sum[i] << left).checked_shr(by.0[i]).unwrap_or(0))
    }

    #[inline(always)]
    fn sum(sum: [u64; LANES]) -> u64 {
        sum.into_iter().sum()
    }

    #[inline(always)]
    fn each(sums: [u64; LANES]) -> [u64; LANES] {
        sums
    }
}
