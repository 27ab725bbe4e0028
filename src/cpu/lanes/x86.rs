//! Every method is one or two instructions. They are reached only from functions compiled for
//! the features, which `reduce` calls only after detecting them: that is the safety of every
//! block below.
#![allow(clippy::undocumented_unsafe_blocks)]

use std::arch::x86_64::*;

use super::{ByLanes, LANES, Lanes};

#[target_feature(enable = "avx512f")]
pub(crate) fn with_avx512<W: ByLanes>(work: W) -> W::Output {
    work.run::<Avx512>()
}

#[target_feature(enable = "avx2,f16c")]
pub(crate) fn with_avx2<W: ByLanes>(work: W) -> W::Output {
    work.run::<Avx2>()
}

/// AVX-512 F: one register.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(__m512i);

impl Lanes for Avx512 {
    /// Lanes 0, 2, 4, …, and lanes 1, 3, 5, ….
    type Wide = [__m512i; 2];

    #[inline(always)]
    fn prefetch<T>(soon: &T) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(std::ptr::from_ref(soon).cast()) }
    }

    #[inline(always)]
    fn load(values: &[u32; LANES]) -> Self {
        Avx512(unsafe { _mm512_loadu_si512(values.as_ptr().cast()) })
    }

    #[inline(always)]
    fn store(self, to: &mut [u32; LANES]) {
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), self.0) }
    }

    #[inline(always)]
    fn load_bf16(values: &[u16; LANES]) -> Self {
        Avx512(unsafe {
            _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(values.as_ptr().cast())))
        })
    }

    #[inline(always)]
    fn load_f16(values: &[u16; LANES]) -> Self {
        Avx512(unsafe { _mm512_castps_si512(_mm512_cvtph_ps(_mm256_loadu_si256(values.as_ptr().cast()))) })
    }

    #[inline(always)]
    fn store_bf16(self, to: &mut [u16; LANES]) {
        unsafe {
            let upper = _mm512_srli_epi32::<16>(self.0);
            let ties = _mm512_and_si512(upper, _mm512_set1_epi32(1));
            let rounded = _mm512_add_epi32(_mm512_add_epi32(self.0, _mm512_set1_epi32(0x7fff)), ties);
            let float = _mm512_castsi512_ps(self.0);
            let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(float, float);
            let quiet = _mm512_or_si512(upper, _mm512_set1_epi32(0x40));
            let halves = _mm512_mask_mov_epi32(_mm512_srli_epi32::<16>(rounded), nan, quiet);
            _mm256_storeu_si256(to.as_mut_ptr().cast(), _mm512_cvtepi32_epi16(halves));
        }
    }

    #[inline(always)]
    fn store_f16(self, to: &mut [u16; LANES]) {
        unsafe {
            let halves = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm512_castsi512_ps(self.0));
            _mm256_storeu_si256(to.as_mut_ptr().cast(), halves);
        }
    }

    #[inline(always)]
    fn times(self, factor: Self) -> Self {
        let float = |a: Self| unsafe { _mm512_castsi512_ps(a.0) };
        Avx512(unsafe { _mm512_castps_si512(_mm512_mul_ps(float(self), float(factor))) })
    }

    #[inline(always)]
    fn splat(value: u32) -> Self {
        Avx512(unsafe { _mm512_set1_epi32(value as i32) })
    }

    #[inline(always)]
    fn and(self, other: Self) -> Self {
        Avx512(unsafe { _mm512_and_si512(self.0, other.0) })
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Avx512(unsafe { _mm512_sub_epi32(self.0, other.0) })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Avx512(unsafe { _mm512_max_epu32(self.0, other.0) })
    }

    #[inline(always)]
    fn shl<const N: u32>(self) -> Self {
        Avx512(unsafe { _mm512_slli_epi32::<N>(self.0) })
    }

    #[inline(always)]
    fn shr<const N: u32>(self) -> Self {
        Avx512(unsafe { _mm512_srli_epi32::<N>(self.0) })
    }

    #[inline(always)]
    fn shr_by(self, amounts: Self) -> Self {
        Avx512(unsafe { _mm512_srlv_epi32(self.0, amounts.0) })
    }

    #[inline(always)]
    fn product(self, factor: Self) -> Self {
        let float = |a| unsafe { _mm512_castsi512_ps(a) };
        Avx512(unsafe { _mm512_cvttps_epi32(_mm512_mul_ps(float(self.0), float(factor.0))) })
    }

    #[inline(always)]
    fn all_at_least(self, limit: u32) -> bool {
        unsafe { _mm512_cmplt_epu32_mask(self.0, Self::splat(limit).0) == 0 }
    }

    #[inline(always)]
    fn zeros() -> [__m512i; 2] {
        [Self::splat(0).0; 2]
    }

    #[inline(always)]
    fn add_to(self, [even, odd]: [__m512i; 2]) -> [__m512i; 2] {
        unsafe {
            let low = _mm512_and_si512(self.0, _mm512_set1_epi64(0xffff_ffff));
            [_mm512_add_epi64(even, low), _mm512_add_epi64(odd, _mm512_srli_epi64::<32>(self.0))]
        }
    }

    // The multiplication reads the lower half of each 64 bits.
    #[inline(always)]
    fn add_square_to(self, [even, odd]: [__m512i; 2]) -> [__m512i; 2] {
        unsafe {
            let high = _mm512_srli_epi64::<32>(self.0);
            let square = |a| _mm512_mul_epi32(a, a);
            [_mm512_add_epi64(even, square(self.0)), _mm512_add_epi64(odd, square(high))]
        }
    }

    #[inline(always)]
    fn add_product_to(self, factor: Self, by: Self, [even, odd]: [__m512i; 2]) -> [__m512i; 2] {
        unsafe {
            let high = |a: Self| _mm512_srli_epi64::<32>(a.0);
            let low = _mm512_and_si512(by.0, _mm512_set1_epi64(0xffff_ffff));
            let first = _mm512_srlv_epi64(_mm512_mul_epu32(self.0, factor.0), low);
            let second = _mm512_srlv_epi64(_mm512_mul_epu32(high(self), high(factor)), high(by));
            [_mm512_add_epi64(even, first), _mm512_add_epi64(odd, second)]
        }
    }

    #[inline(always)]
    fn add_shifted([even, odd]: [__m512i; 2], left: u32, by: Self, total: [__m512i; 2]) -> [__m512i; 2] {
        unsafe {
            let left = _mm512_set1_epi64(left.into());
            let low = _mm512_and_si512(by.0, _mm512_set1_epi64(0xffff_ffff));
            let first = _mm512_srlv_epi64(_mm512_sllv_epi64(even, left), low);
            let second = _mm512_srlv_epi64(_mm512_sllv_epi64(odd, left), _mm512_srli_epi64::<32>(by.0));
            [_mm512_add_epi64(total[0], first), _mm512_add_epi64(total[1], second)]
        }
    }

    #[inline(always)]
    fn each(sums: [__m512i; 2]) -> [u64; LANES] {
        let mut halves = [[0u64; LANES / 2]; 2];
        for (to, sum) in halves.iter_mut().zip(sums) {
            unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), sum) }
        }
        std::array::from_fn(|i| halves[i % 2][i / 2])
    }

    #[inline(always)]
    fn sum([even, odd]: [__m512i; 2]) -> u64 {
        unsafe { _mm512_reduce_add_epi64(_mm512_add_epi64(even, odd)) as u64 }
    }
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
        let low = _mm256_and_si256(by, _mm256_set1_epi64x(0xffff_ffff));
        let first = _mm256_srlv_epi64(_mm256_mul_epu32(a, b), low);
        let (a, b, by) =
            (_mm256_srli_epi64::<32>(a), _mm256_srli_epi64::<32>(b), _mm256_srli_epi64::<32>(by));
        let second = _mm256_srlv_epi64(_mm256_mul_epu32(a, b), by);
        [_mm256_add_epi64(even, first), _mm256_add_epi64(odd, second)]
    }
}
