//! Lanes as vectors of aarch64, where NEON is always there.

use std::arch::aarch64::*;
use std::arch::asm;

use super::operations::{LANES, Lanes};

/// Four registers of four lanes.
#[derive(Clone, Copy)]
pub(crate) struct Neon([uint32x4_t; 4]);

/// The lower and the upper lanes of each register.
type Sums = [[uint64x2_t; 2]; 4];

impl Neon {
    #[inline(always)]
    fn map(self, f: impl Fn(uint32x4_t) -> uint32x4_t) -> Self {
        Neon(self.0.map(f))
    }

    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(uint32x4_t, uint32x4_t) -> uint32x4_t) -> Self {
        Neon(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }
}

/// Right by amounts below 64, by others to 0: the instruction takes the lowest byte of an amount, with its sign.
#[inline(always)]
fn shr_by(values: uint64x2_t, amounts: uint64x2_t) -> uint64x2_t {
    // SAFETY: NEON belongs to every aarch64.
    unsafe {
        let beyond = vcgeq_u64(amounts, vdupq_n_u64(64));
        let shifted = vshlq_u64(values, vnegq_s64(vreinterpretq_s64_u64(amounts)));
        vbicq_u64(shifted, beyond)
    }
}

/// To the nearest `f16`, ties to even; of a NaN the sign and its upper bits, made quiet. The intrinsic needs the type `f16` of
/// Rust, which is not stable.
#[inline(always)]
fn narrowed(values: uint32x4_t) -> uint16x4_t {
    let halves: uint16x4_t;
    // SAFETY: the conversion belongs to the NEON of every aarch64; it reads one register and writes another. Rust code runs in the
    // default floating-point environment, whose rounding is to nearest and whose halves are IEEE's.
    unsafe {
        asm!("fcvtn {to:v}.4h, {from:v}.4s", to = out(vreg) halves, from = in(vreg) values,
            options(pure, nomem, nostack));
    }
    halves
}

/// The `f32` equal to each `f16`.
#[inline(always)]
fn widened(halves: uint16x4_t) -> uint32x4_t {
    let values: uint32x4_t;
    // SAFETY: as for [`narrowed`].
    unsafe {
        asm!("fcvtl {to:v}.4s, {from:v}.4h", to = out(vreg) values, from = in(vreg) halves,
            options(pure, nomem, nostack));
    }
    values
}

#[inline(always)]
fn add_each(sums: Sums, f: impl Fn(usize, [uint64x2_t; 2]) -> [uint64x2_t; 2]) -> Sums {
    std::array::from_fn(|i| f(i, sums[i]))
}

// SAFETY, of every block: NEON belongs to every aarch64, and what is loaded or stored is the array of which it is a part.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Lanes for Neon {
    type Wide = Sums;
    const FUSES: bool = true;

    #[inline(always)]
    fn load(values: &[u32; LANES]) -> Self {
        let (quads, _) = values.as_chunks::<4>();
        Neon(std::array::from_fn(|i| unsafe { vld1q_u32(quads[i].as_ptr()) }))
    }

    #[inline(always)]
    fn store(self, to: &mut [u32; LANES]) {
        let (quads, _) = to.as_chunks_mut::<4>();
        quads.iter_mut().zip(self.0).for_each(|(to, own)| unsafe { vst1q_u32(to.as_mut_ptr(), own) });
    }

    #[inline(always)]
    fn load_bf16(values: &[u16; LANES]) -> Self {
        let (quads, _) = values.as_chunks::<4>();
        Neon(std::array::from_fn(|i| unsafe { vshlq_n_u32::<16>(vmovl_u16(vld1_u16(quads[i].as_ptr()))) }))
    }

    #[inline(always)]
    fn load_f16(values: &[u16; LANES]) -> Self {
        let (quads, _) = values.as_chunks::<4>();
        Neon(std::array::from_fn(|i| widened(unsafe { vld1_u16(quads[i].as_ptr()) })))
    }

    #[inline(always)]
    fn store_f16(self, to: &mut [u16; LANES]) {
        let (quads, _) = to.as_chunks_mut::<4>();
        quads.iter_mut().zip(self.0).for_each(|(to, a)| unsafe { vst1_u16(to.as_mut_ptr(), narrowed(a)) });
    }

    #[inline(always)]
    fn store_bf16(self, to: &mut [u16; LANES]) {
        let (quads, _) = to.as_chunks_mut::<4>();
        quads.iter_mut().zip(self.0).for_each(|(to, a)| unsafe {
            let upper = vshrq_n_u32::<16>(a);
            let ties = vandq_u32(upper, vdupq_n_u32(1));
            let rounded = vaddq_u32(vaddq_u32(a, vdupq_n_u32(0x7fff)), ties);
            let float = vreinterpretq_f32_u32(a);
            let number = vceqq_f32(float, float);
            let quiet = vorrq_u32(upper, vdupq_n_u32(0x40));
            vst1_u16(to.as_mut_ptr(), vmovn_u32(vbslq_u32(number, vshrq_n_u32::<16>(rounded), quiet)));
        });
    }

    #[inline(always)]
    fn times(self, factor: Self) -> Self {
        let float = |a| unsafe { vreinterpretq_f32_u32(a) };
        self.zip(factor, |a, b| unsafe { vreinterpretq_u32_f32(vmulq_f32(float(a), float(b))) })
    }

    #[inline(always)]
    fn splat(value: u32) -> Self {
        Neon([unsafe { vdupq_n_u32(value) }; 4])
    }

    #[inline(always)]
    fn and(self, other: Self) -> Self {
        self.zip(other, |a, b| unsafe { vandq_u32(a, b) })
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| unsafe { vsubq_u32(a, b) })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| unsafe { vmaxq_u32(a, b) })
    }

    #[inline(always)]
    fn shl<const N: u32>(self) -> Self {
        self.map(|a| unsafe { vshlq_u32(a, vdupq_n_s32(N as i32)) })
    }

    #[inline(always)]
    fn shr<const N: u32>(self) -> Self {
        self.map(|a| unsafe { vshlq_u32(a, vdupq_n_s32(-(N as i32))) })
    }

    #[inline(always)]
    fn shr_by(self, amounts: Self) -> Self {
        self.zip(amounts, |a, n| unsafe {
            let beyond = vcgeq_u32(n, vdupq_n_u32(32));
            vbicq_u32(vshlq_u32(a, vnegq_s32(vreinterpretq_s32_u32(n))), beyond)
        })
    }

    #[inline(always)]
    fn product(self, factor: Self) -> Self {
        let float = |a| unsafe { vreinterpretq_f32_u32(a) };
        self.zip(factor, |a, b| unsafe {
            vreinterpretq_u32_s32(vcvtq_s32_f32(vmulq_f32(float(a), float(b))))
        })
    }

    #[inline(always)]
    fn largest(self) -> u32 {
        let [a, b, c, d] = self.0;
        unsafe { vmaxvq_u32(vmaxq_u32(vmaxq_u32(a, b), vmaxq_u32(c, d))) }
    }

    #[inline(always)]
    fn all_at_least(self, limit: u32) -> bool {
        let [a, b, c, d] = self.0;
        unsafe { vminvq_u32(vminq_u32(vminq_u32(a, b), vminq_u32(c, d))) >= limit }
    }

    #[inline(always)]
    fn zeros() -> Sums {
        [[unsafe { vdupq_n_u64(0) }; 2]; 4]
    }

    #[inline(always)]
    fn add_to(self, sums: Sums) -> Sums {
        add_each(sums, |i, [low, high]| unsafe {
            [vaddw_u32(low, vget_low_u32(self.0[i])), vaddw_high_u32(high, self.0[i])]
        })
    }

    #[inline(always)]
    fn add_square_to(self, sums: Sums) -> Sums {
        let signed = |sum| unsafe { vreinterpretq_s64_u64(sum) };
        add_each(sums, |i, [low, high]| unsafe {
            let a = vreinterpretq_s32_u32(self.0[i]);
            let low = vmlal_s32(signed(low), vget_low_s32(a), vget_low_s32(a));
            [vreinterpretq_u64_s64(low), vreinterpretq_u64_s64(vmlal_high_s32(signed(high), a, a))]
        })
    }

    #[inline(always)]
    fn add_product_to(self, factor: Self, by: Self, sums: Sums) -> Sums {
        add_each(sums, |i, [low, high]| unsafe {
            let (a, b, by) = (self.0[i], factor.0[i], by.0[i]);
            let first = shr_by(vmull_u32(vget_low_u32(a), vget_low_u32(b)), vmovl_u32(vget_low_u32(by)));
            let second = shr_by(vmull_high_u32(a, b), vmovl_high_u32(by));
            [vaddq_u64(low, first), vaddq_u64(high, second)]
        })
    }

    #[inline(always)]
    fn add_shifted(sums: Sums, left: u32, by: Self, total: Sums) -> Sums {
        add_each(total, |i, [low, high]| unsafe {
            let left = vdupq_n_s64(left.into());
            let by = by.0[i];
            let first = shr_by(vshlq_u64(sums[i][0], left), vmovl_u32(vget_low_u32(by)));
            let second = shr_by(vshlq_u64(sums[i][1], left), vmovl_high_u32(by));
            [vaddq_u64(low, first), vaddq_u64(high, second)]
        })
    }

    #[inline(always)]
    fn each(sums: Sums) -> [u64; LANES] {
        let mut pairs = [[0u64; 2]; LANES / 2];
        for (to, &sum) in pairs.iter_mut().zip(sums.as_flattened()) {
            unsafe { vst1q_u64(to.as_mut_ptr(), sum) }
        }
        std::array::from_fn(|i| pairs[i / 2][i % 2])
    }

    #[inline(always)]
    fn sum(sums: Sums) -> u64 {
        sums.into_iter().map(|[low, high]| unsafe { vaddvq_u64(vaddq_u64(low, high)) }).sum()
    }
}
