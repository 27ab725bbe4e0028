//! Lanes as a register of AVX-512 F of x86-64.
//!
//! Every method is one or two instructions. They are reached only through [`run`], which is called only after its features
//! were detected: that is the safety of every block below.
#![allow(clippy::undocumented_unsafe_blocks)]

use std::arch::x86_64::*;

use super::operations::{ByLanes, LANES, Lanes};

/// Runs work in these registers.
#[target_feature(enable = "avx512f")]
pub(crate) fn run<W: ByLanes>(work: W) -> W::Output {
    work.run::<Avx512>()
}

/// AVX-512 F: one register.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(__m512i);

impl Lanes for Avx512 {
    /// Lanes 0, 2, 4, …, and lanes 1, 3, 5, ….
    type Wide = [__m512i; 2];
    const FUSES: bool = true;

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
    fn times_toward_zero(self, factor: Self) -> Self {
        let float = |a: Self| unsafe { _mm512_castsi512_ps(a.0) };
        const WAY: i32 = _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC;
        let product = unsafe { _mm512_mul_round_ps::<WAY>(float(self), float(factor)) };
        Avx512(unsafe { _mm512_castps_si512(product) })
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
            // No product has 63 bits; compilers test for shifts by 64 and more that they cannot exclude.
            let by = Avx512(_mm512_min_epu32(by.0, _mm512_set1_epi32(63)));
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
