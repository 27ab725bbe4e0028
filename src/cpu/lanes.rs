//! Sixteen `u32` lanes, as registers of whatever width the processor has.

/// Number of lanes.
pub(crate) const LANES: usize = 16;

/// The operations that a chunk's sum needs, lane by lane.
pub(crate) trait Lanes: Copy {
    fn load(values: &[u32; LANES]) -> Self;
    fn store(self, to: &mut [u32; LANES]);
    fn splat(value: u32) -> Self;
    fn and(self, other: Self) -> Self;
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn max(self, other: Self) -> Self;
    fn shl<const N: u32>(self) -> Self;
    fn shr<const N: u32>(self) -> Self;
    /// Right by a different amount in each lane; 32 and more give 0.
    fn shr_by(self, amounts: Self) -> Self;
    /// `self + a * b` modulo 2^32, for `a` and `b` below 2^15.
    fn add_product(self, a: Self, b: Self) -> Self;
    fn any_at_least(self, limit: u32) -> bool;
}

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
    fn add(self, other: Self) -> Self {
        self.zip(other, u32::wrapping_add)
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
    fn add_product(self, a: Self, b: Self) -> Self {
        self.add(a.zip(b, |a, b| a * b))
    }

    #[inline(always)]
    fn any_at_least(self, limit: u32) -> bool {
        self.0.iter().any(|&a| a >= limit)
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) mod x86 {
    //! Every method is one or two instructions. They are reached only from functions compiled for
    //! the features, which `reduce` calls only after detecting them: that is the safety of every
    //! block below.
    #![allow(clippy::undocumented_unsafe_blocks)]

    use std::arch::x86_64::*;

    use super::{LANES, Lanes};

    /// AVX-512 F, BW and VNNI: one register.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx512(__m512i);

    impl Lanes for Avx512 {
        #[inline(always)]
        fn load(values: &[u32; LANES]) -> Self {
            Avx512(unsafe { _mm512_loadu_si512(values.as_ptr().cast()) })
        }

        #[inline(always)]
        fn store(self, to: &mut [u32; LANES]) {
            unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), self.0) }
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
        fn add(self, other: Self) -> Self {
            Avx512(unsafe { _mm512_add_epi32(self.0, other.0) })
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

        // Pairs of 16 bits are multiplied and added; the upper of each pair is 0.
        #[inline(always)]
        fn add_product(self, a: Self, b: Self) -> Self {
            Avx512(unsafe { _mm512_dpwssd_epi32(self.0, a.0, b.0) })
        }

        #[inline(always)]
        fn any_at_least(self, limit: u32) -> bool {
            unsafe { _mm512_cmpge_epu32_mask(self.0, Self::splat(limit).0) != 0 }
        }
    }

    /// AVX2: two registers.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2(__m256i, __m256i);

    impl Avx2 {
        #[inline(always)]
        fn zip(self, other: Self, f: impl Fn(__m256i, __m256i) -> __m256i) -> Self {
            Avx2(f(self.0, other.0), f(self.1, other.1))
        }
    }

    impl Lanes for Avx2 {
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
        fn splat(value: u32) -> Self {
            let one = unsafe { _mm256_set1_epi32(value as i32) };
            Avx2(one, one)
        }

        #[inline(always)]
        fn and(self, other: Self) -> Self {
            self.zip(other, |a, b| unsafe { _mm256_and_si256(a, b) })
        }

        #[inline(always)]
        fn add(self, other: Self) -> Self {
            self.zip(other, |a, b| unsafe { _mm256_add_epi32(a, b) })
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
        fn add_product(self, a: Self, b: Self) -> Self {
            self.add(a.zip(b, |a, b| unsafe { _mm256_madd_epi16(a, b) }))
        }

        #[inline(always)]
        fn any_at_least(self, limit: u32) -> bool {
            // Unsigned a >= limit is max(a, limit) == a.
            let above = self.max(Self::splat(limit)).zip(self, |a, b| unsafe { _mm256_cmpeq_epi32(a, b) });
            unsafe { _mm256_movemask_epi8(_mm256_or_si256(above.0, above.1)) != 0 }
        }
    }
}
