//! Lanes as two registers of AVX2, with F16C of x86-64.
//!
//! Every method is one or two instructions. They are reached only through [`run`], which is called only after its features
//! were detected: that is the safety of every block below.
#![allow(clippy::undocumented_unsafe_blocks)]

use std::arch::x86_64::*;

use super::operations::{ByLanes, LANES, Lanes};

/// Whether the processor has what [`run`] is compiled for.
pub(crate) fn is_detected() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c") && is_x86_feature_detected!("fma")
}

/// Runs work in these registers.
#[target_feature(enable = "avx2,f16c,fma")]
pub(crate) fn run<W: ByLanes>(work: W) -> W::Output {
    work.run::<Avx2>()
}

/// AVX2 and F16C: two registers.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(__m256i, __m256i);

impl Avx2 {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(__m256i, __m256i) -> __m256i) -> Self {
        Avx2(f(self.0, other.0), f(self.1, other.1))
    }

    /// All bits of the lanes that are, unsigned: max(a, limit) == a.
    #[inline(always)]
    fn at_least(self, limit: u32) -> Self {
        self.max(Self::splat(limit)).zip(self, |a, b| unsafe { _mm256_cmpeq_epi32(a, b) })
    }
}

impl Lanes for Avx2 {
    /// Lanes 0, 2, 4, … and 1, 3, 5, … of each half.
    type Wide = [[__m256i; 2]; 2];
    const FUSES: bool = true;

    #[inline(always)]
    fn prefetch<T>(soon: &T) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(soon).cast()) }
    }

    #[inline(always)]
    fn load(values: &[u32; LANES]) -> Self {
        let (low, high) = values.split_at(8);
        unsafe { Avx2(_mm256_loadu_si256(low.as_ptr().cast()), _mm256_loadu_si256(high.as_ptr().cast())) }
    }

    #[inline(always)]
    fn store(self, to: &mut [u32; LANES]) {
        let (low, high) = to.split_at_mut(8);
        unsafe {
            _mm256_storeu_si256(low.as_mut_ptr().cast(), self.0);
            _mm256_storeu_si256(high.as_mut_ptr().cast(), self.1);
        }
    }

    #[inline(always)]
    fn load_bf16(values: &[u16; LANES]) -> Self {
        let (low, high) = values.split_at(8);
        let widened = |half: &[u16]| unsafe {
            _mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(half.as_ptr().cast())))
        };
        Avx2(widened(low), widened(high))
    }

    #[inline(always)]
    fn load_f16(values: &[u16; LANES]) -> Self {
        let (low, high) = values.split_at(8);
        let widened = |half: &[u16]| unsafe {
            _mm256_castps_si256(_mm256_cvtph_ps(_mm_loadu_si128(half.as_ptr().cast())))
        };
        Avx2(widened(low), widened(high))
    }

    #[inline(always)]
    fn store_bf16(self, to: &mut [u16; LANES]) {
        let halves = |a| unsafe {
            let upper = _mm256_srli_epi32::<16>(a);
            let ties = _mm256_and_si256(upper, _mm256_set1_epi32(1));
            let rounded = _mm256_add_epi32(_mm256_add_epi32(a, _mm256_set1_epi32(0x7fff)), ties);
            let float = _mm256_castsi256_ps(a);
            let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(float, float));
            let quiet = _mm256_or_si256(upper, _mm256_set1_epi32(0x40));
            _mm256_blendv_epi8(_mm256_srli_epi32::<16>(rounded), quiet, nan)
        };
        unsafe {
            // Packs within halves of registers, whose quarters then stand in the order 0, 2, 1, 3.
            let packed = _mm256_packus_epi32(halves(self.0), halves(self.1));
            _mm256_storeu_si256(to.as_mut_ptr().cast(), _mm256_permute4x64_epi64::<0b11_01_10_00>(packed));
        }
    }

    #[inline(always)]
    fn store_f16(self, to: &mut [u16; LANES]) {
        let (low, high) = to.split_at_mut(8);
        let store = |a, to: &mut [u16]| unsafe {
            let halves = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm256_castsi256_ps(a));
            _mm_storeu_si128(to.as_mut_ptr().cast(), halves);
        };
        store(self.0, low);
        store(self.1, high);
    }

    #[inline(always)]
    fn times(self, factor: Self) -> Self {
        let float = |a| unsafe { _mm256_castsi256_ps(a) };
        self.zip(factor, |a, b| unsafe { _mm256_castps_si256(_mm256_mul_ps(float(a), float(b))) })
    }

    #[inline(always)]
    fn splat(value: u32) -> Self {
        let one = unsafe { _mm256_set1_epi32(value as i32) };
        Avx2(one, one)
    }

    #[inline(always)]
    fn and(self, other: Self) -> Self {
        self.zip(other, |a, b| unsafe { _mm256_and_si256(a, b) })
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| unsafe { _mm256_sub_epi32(a, b) })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| unsafe { _mm256_max_epu32(a, b) })
    }

    #[inline(always)]
    fn shl<const N: u32>(self) -> Self {
        let by = |a| unsafe { _mm256_sll_epi32(a, _mm_cvtsi32_si128(N as i32)) };
        Avx2(by(self.0), by(self.1))
    }

    #[inline(always)]
    fn shr<const N: u32>(self) -> Self {
        let by = |a| unsafe { _mm256_srl_epi32(a, _mm_cvtsi32_si128(N as i32)) };
        Avx2(by(self.0), by(self.1))
    }

    #[inline(always)]
    fn shr_by(self, amounts: Self) -> Self {
        self.zip(amounts, |a, n| unsafe { _mm256_srlv_epi32(a, n) })
    }

    #[inline(always)]
    fn product(self, factor: Self) -> Self {
        let float = |a| unsafe { _mm256_castsi256_ps(a) };
        self.zip(factor, |a, b| unsafe { _mm256_cvttps_epi32(_mm256_mul_ps(float(a), float(b))) })
    }

    #[inline(always)]
    fn all_at_least(self, limit: u32) -> bool {
        let at_least = self.at_least(limit);
        unsafe { _mm256_movemask_epi8(_mm256_and_si256(at_least.0, at_least.1)) == -1 }
    }

    #[inline(always)]
    fn zeros() -> [[__m256i; 2]; 2] {
        let Avx2(zero, _) = Self::splat(0);
        [[zero; 2]; 2]
    }

    #[inline(always)]
    fn add_to(self, sums: [[__m256i; 2]; 2]) -> [[__m256i; 2]; 2] {
        let add = |[even, odd]: [__m256i; 2], a| unsafe {
            let low = _mm256_and_si256(a, _mm256_set1_epi64x(0xffff_ffff));
            [_mm256_add_epi64(even, low), _mm256_add_epi64(odd, _mm256_srli_epi64::<32>(a))]
        };
        [add(sums[0], self.0), add(sums[1], self.1)]
    }

    // The multiplication reads the lower half of each 64 bits.
    #[inline(always)]
    fn add_square_to(self, sums: [[__m256i; 2]; 2]) -> [[__m256i; 2]; 2] {
        let add = |[even, odd]: [__m256i; 2], a| unsafe {
            let high = _mm256_srli_epi64::<32>(a);
            let square = |a| _mm256_mul_epi32(a, a);
            [_mm256_add_epi64(even, square(a)), _mm256_add_epi64(odd, square(high))]
        };
        [add(sums[0], self.0), add(sums[1], self.1)]
    }

    #[inline(always)]
    fn add_product_to(self, factor: Self, by: Self, sums: [[__m256i; 2]; 2]) -> [[__m256i; 2]; 2] {
        let [first, second] = sums;
        [add_product(self.0, factor.0, by.0, first), add_product(self.1, factor.1, by.1, second)]
    }

    #[inline(always)]
    fn add_shifted(
        sums: [[__m256i; 2]; 2],
        left: u32,
        by: Self,
        total: [[__m256i; 2]; 2],
    ) -> [[__m256i; 2]; 2] {
        [add_shifted(sums[0], left, by.0, total[0]), add_shifted(sums[1], left, by.1, total[1])]
    }

    #[inline(always)]
    fn each(sums: [[__m256i; 2]; 2]) -> [u64; LANES] {
        let mut quarters = [[0u64; LANES / 4]; 4];
        for (to, &sum) in quarters.iter_mut().zip(sums.as_flattened()) {
            unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), sum) }
        }
        std::array::from_fn(|i| quarters[i / 8 * 2 + i % 2][i % 8 / 2])
    }

    #[inline(always)]
    fn sum([[a, b], [c, d]]: [[__m256i; 2]; 2]) -> u64 {
        let mut lanes = [0u64; 4];
        unsafe {
            let sum = _mm256_add_epi64(_mm256_add_epi64(a, b), _mm256_add_epi64(c, d));
            _mm256_storeu_si256(lanes.as_mut_ptr().cast(), sum);
        }
        lanes.into_iter().sum()
    }
}

/// As [`Lanes::add_shifted`], of one register.
#[inline(always)]
fn add_shifted([even, odd]: [__m256i; 2], left: u32, by: __m256i, total: [__m256i; 2]) -> [__m256i; 2] {
    unsafe {
        let left = _mm256_set1_epi64x(left.into());
        let low = _mm256_and_si256(by, _mm256_set1_epi64x(0xffff_ffff));
        let first = _mm256_srlv_epi64(_mm256_sllv_epi64(even, left), low);
        let second = _mm256_srlv_epi64(_mm256_sllv_epi64(odd, left), _mm256_srli_epi64::<32>(by));
        [_mm256_add_epi64(total[0], first), _mm256_add_epi64(total[1], second)]
    }
}

/// As [`Lanes::add_product_to`], of one register.
#[inline(always)]
fn add_product(a: __m256i, b: __m256i, by: __m256i, [even, odd]: [__m256i; 2]) -> [__m256i; 2] {
    unsafe {
        // No product has 63 bits; compilers test for shifts by 64 and more that they cannot exclude.
        let by = _mm256_min_epu32(by, _mm256_set1_epi32(63));
        let low = _mm256_and_si256(by, _mm256_set1_epi64x(0xffff_ffff));
        let first = _mm256_srlv_epi64(_mm256_mul_epu32(a, b), low);
        let (a, b, by) =
            (_mm256_srli_epi64::<32>(a), _mm256_srli_epi64::<32>(b), _mm256_srli_epi64::<32>(by));
        let second = _mm256_srlv_epi64(_mm256_mul_epu32(a, b), by);
        [_mm256_add_epi64(even, first), _mm256_add_epi64(odd, second)]
    }
}
