//! Lanes in arrays, for any processor.

use super::operations::{LANES, Lanes};

/// For any processor.
#[derive(Clone, Copy)]
pub(crate) struct Portable([u32; LANES]);

impl Portable {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(u32, u32) -> u32) -> Self {
        Portable(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }
}

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
