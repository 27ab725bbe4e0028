//! Sixteen `u32` lanes, as registers of whatever width the processor has.

#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86;

/// Number of lanes.
pub(crate) const LANES: usize = 16;

/// The operations that a chunk's sum needs, lane by lane.
pub(crate) trait Lanes: Copy {
    /// As many `u64`, one a lane.
    type Wide: Copy;
    fn load(values: &[u32; LANES]) -> Self;
    fn store(self, to: &mut [u32; LANES]);
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
    /// Asks for memory that will be read soon.
    #[inline(always)]
    fn prefetch(_: &[u32; LANES]) {}
}

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
}
