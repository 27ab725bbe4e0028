//! Lanes as vectors of WebAssembly, where a program is compiled for `simd128`: what loads it has to have them, so nothing is detected.

use std::arch::wasm32::*;

use super::operations::{LANES, Lanes};

/// Four vectors of four lanes.
#[derive(Clone, Copy)]
pub(crate) struct Simd128([v128; 4]);

/// The lower and the upper lanes of each vector.
type Sums = [[v128; 2]; 4];

impl Simd128 {
    #[inline(always)]
    fn map(self, f: impl Fn(v128) -> v128) -> Self {
        Simd128(self.0.map(f))
    }

    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(v128, v128) -> v128) -> Self {
        Simd128(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }

    /// From vectors that hold all lanes in 16 bits.
    #[inline(always)]
    fn widened(values: &[u16; LANES], f: impl Fn(v128) -> v128) -> Self {
        let (octets, _) = values.as_chunks::<8>();
        // SAFETY: what is loaded is the array, which is as long as a vector.
        let [low, high] = [0, 1].map(|i| unsafe { v128_load(octets[i].as_ptr().cast()) });
        let (low, high) = (
            [u32x4_extend_low_u16x8(low), u32x4_extend_high_u16x8(low)],
            [u32x4_extend_low_u16x8(high), u32x4_extend_high_u16x8(high)],
        );
        Simd128([low[0], low[1], high[0], high[1]]).map(f)
    }

    /// The lower 16 bits of what is made of each lane, whose upper ones are 0.
    #[inline(always)]
    fn narrowed(self, to: &mut [u16; LANES], f: impl Fn(v128) -> v128) {
        let Simd128([a, b, c, d]) = self.map(f);
        let (octets, _) = to.as_chunks_mut::<8>();
        let packed = [u16x8_narrow_i32x4(a, b), u16x8_narrow_i32x4(c, d)];
        for (to, octet) in octets.iter_mut().zip(packed) {
            // SAFETY: what is stored to is the array, which is as long as a vector.
            unsafe { v128_store(to.as_mut_ptr().cast(), octet) }
        }
    }
}

/// Right by another amount in each lane, for which there is no instruction; 64 and more give 0.
#[inline(always)]
fn shr_by(values: v128, first: u32, second: u32) -> v128 {
    let shifted = |value: u64, by: u32| value.checked_shr(by).unwrap_or(0);
    u64x2(shifted(u64x2_extract_lane::<0>(values), first), shifted(u64x2_extract_lane::<1>(values), second))
}

#[inline(always)]
fn lanes_of(a: v128) -> [u32; 4] {
    [
        u32x4_extract_lane::<0>(a),
        u32x4_extract_lane::<1>(a),
        u32x4_extract_lane::<2>(a),
        u32x4_extract_lane::<3>(a),
    ]
}

#[inline(always)]
fn add_each(sums: Sums, f: impl Fn(usize, [v128; 2]) -> [v128; 2]) -> Sums {
    std::array::from_fn(|i| f(i, sums[i]))
}

/// The `f32` equal to each `f16`.
#[inline(always)]
fn widened_f16(halves: v128) -> v128 {
    let magnitude = v128_and(halves, u32x4_splat(0x7fff));
    let sign = u32x4_shl(v128_xor(halves, magnitude), 16);
    let moved = u32x4_shl(magnitude, 13);
    // A product with 2^112, exact for subnormals too, moves exponents from one bias to the other.
    let finite = f32x4_mul(moved, f32x4_splat(f32::from_bits(0x7780_0000)));
    let special = v128_and(u32x4_ge(magnitude, u32x4_splat(0x7c00)), u32x4_splat(0x7f80_0000));
    v128_or(v128_or(finite, special), sign)
}

/// The `f16` nearest to each `f32`, ties to even; of a NaN the sign and its upper bits, made quiet.
#[inline(always)]
fn narrowed_f16(a: v128) -> v128 {
    let magnitude = v128_and(a, u32x4_splat(0x7fff_ffff));
    let sign = u32x4_shr(v128_xor(a, magnitude), 16);
    // Between 1/2 and 1 numbers are as far from each other as subnormal halves: a sum rounds to these.
    let half = f32x4_splat(0.5);
    let subnormal = u32x4_sub(f32x4_add(magnitude, half), half);
    let ties = v128_and(u32x4_shr(magnitude, 13), u32x4_splat(1));
    let rounded = u32x4_add(u32x4_add(magnitude, u32x4_splat(0xfff)), ties);
    let normal = u32x4_shr(u32x4_sub(rounded, u32x4_splat(112 << 23)), 13);
    let finite = v128_bitselect(subnormal, normal, u32x4_lt(magnitude, u32x4_splat(113 << 23)));
    let quiet = v128_or(v128_and(u32x4_shr(magnitude, 13), u32x4_splat(0x3ff)), u32x4_splat(0x7e00));
    let nan = u32x4_gt(magnitude, u32x4_splat(0x7f80_0000));
    let large = v128_bitselect(quiet, u32x4_splat(0x7c00), nan);
    // From the tie between the largest half and the power of two beyond on, which is even.
    v128_or(v128_bitselect(large, finite, u32x4_ge(magnitude, u32x4_splat(0x477f_f000))), sign)
}

/// The `bf16` nearest to each `f32`, ties to even; of a NaN the sign and its upper bits, made quiet.
#[inline(always)]
fn narrowed_bf16(a: v128) -> v128 {
    let upper = u32x4_shr(a, 16);
    let ties = v128_and(upper, u32x4_splat(1));
    let rounded = u32x4_shr(u32x4_add(u32x4_add(a, u32x4_splat(0x7fff)), ties), 16);
    let quiet = v128_or(upper, u32x4_splat(0x40));
    v128_bitselect(rounded, quiet, f32x4_eq(a, a))
}

// SAFETY, of every block: what is loaded or stored is the array of which it is a part.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Lanes for Simd128 {
    type Wide = Sums;
    const FUSES: bool = false;

    #[inline(always)]
    fn load(values: &[u32; LANES]) -> Self {
        let (quads, _) = values.as_chunks::<4>();
        Simd128(std::array::from_fn(|i| unsafe { v128_load(quads[i].as_ptr().cast()) }))
    }

    #[inline(always)]
    fn store(self, to: &mut [u32; LANES]) {
        let (quads, _) = to.as_chunks_mut::<4>();
        quads.iter_mut().zip(self.0).for_each(|(to, own)| unsafe { v128_store(to.as_mut_ptr().cast(), own) });
    }

    #[inline(always)]
    fn load_bf16(values: &[u16; LANES]) -> Self {
        Self::widened(values, |a| u32x4_shl(a, 16))
    }

    #[inline(always)]
    fn load_f16(values: &[u16; LANES]) -> Self {
        Self::widened(values, widened_f16)
    }

    #[inline(always)]
    fn store_bf16(self, to: &mut [u16; LANES]) {
        self.narrowed(to, narrowed_bf16);
    }

    #[inline(always)]
    fn store_f16(self, to: &mut [u16; LANES]) {
        self.narrowed(to, narrowed_f16);
    }

    #[inline(always)]
    fn times(self, factor: Self) -> Self {
        self.zip(factor, |a, b| f32x4_mul(a, b))
    }

    #[inline(always)]
    fn splat(value: u32) -> Self {
        Simd128([u32x4_splat(value); 4])
    }

    #[inline(always)]
    fn and(self, other: Self) -> Self {
        self.zip(other, |a, b| v128_and(a, b))
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| u32x4_sub(a, b))
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| u32x4_max(a, b))
    }

    #[inline(always)]
    fn shl<const N: u32>(self) -> Self {
        self.map(|a| u32x4_shl(a, N))
    }

    #[inline(always)]
    fn shr<const N: u32>(self) -> Self {
        self.map(|a| u32x4_shr(a, N))
    }

    #[inline(always)]
    fn shr_by(self, amounts: Self) -> Self {
        self.zip(amounts, |a, by| {
            let (a, by) = (lanes_of(a), lanes_of(by));
            let [x, y, z, w] = std::array::from_fn(|i| a[i].checked_shr(by[i]).unwrap_or(0));
            u32x4(x, y, z, w)
        })
    }

    #[inline(always)]
    fn product(self, factor: Self) -> Self {
        self.zip(factor, |a, b| i32x4_trunc_sat_f32x4(f32x4_mul(a, b)))
    }

    #[inline(always)]
    fn largest(self) -> u32 {
        let [a, b, c, d] = self.0;
        lanes_of(u32x4_max(u32x4_max(a, b), u32x4_max(c, d))).into_iter().fold(0, u32::max)
    }

    #[inline(always)]
    fn all_at_least(self, limit: u32) -> bool {
        let [a, b, c, d] = self.0;
        u32x4_all_true(u32x4_ge(u32x4_min(u32x4_min(a, b), u32x4_min(c, d)), u32x4_splat(limit)))
    }

    #[inline(always)]
    fn zeros() -> Sums {
        [[u64x2_splat(0); 2]; 4]
    }

    #[inline(always)]
    fn add_to(self, sums: Sums) -> Sums {
        add_each(sums, |i, [low, high]| {
            let a = self.0[i];
            [u64x2_add(low, u64x2_extend_low_u32x4(a)), u64x2_add(high, u64x2_extend_high_u32x4(a))]
        })
    }

    #[inline(always)]
    fn add_square_to(self, sums: Sums) -> Sums {
        add_each(sums, |i, [low, high]| {
            let a = self.0[i];
            [i64x2_add(low, i64x2_extmul_low_i32x4(a, a)), i64x2_add(high, i64x2_extmul_high_i32x4(a, a))]
        })
    }

    #[inline(always)]
    fn add_product_to(self, factor: Self, by: Self, sums: Sums) -> Sums {
        add_each(sums, |i, [low, high]| {
            let (a, b, [n, o, p, q]) = (self.0[i], factor.0[i], lanes_of(by.0[i]));
            let first = shr_by(u64x2_extmul_low_u32x4(a, b), n, o);
            let second = shr_by(u64x2_extmul_high_u32x4(a, b), p, q);
            [u64x2_add(low, first), u64x2_add(high, second)]
        })
    }

    #[inline(always)]
    fn add_shifted(sums: Sums, left: u32, by: Self, total: Sums) -> Sums {
        add_each(total, |i, [low, high]| {
            let [n, o, p, q] = lanes_of(by.0[i]);
            let first = shr_by(u64x2_shl(sums[i][0], left), n, o);
            let second = shr_by(u64x2_shl(sums[i][1], left), p, q);
            [u64x2_add(low, first), u64x2_add(high, second)]
        })
    }

    #[inline(always)]
    fn each(sums: Sums) -> [u64; LANES] {
        std::array::from_fn(|i| {
            let pair = sums[i / 4][i % 4 / 2];
            if i % 2 == 0 { u64x2_extract_lane::<0>(pair) } else { u64x2_extract_lane::<1>(pair) }
        })
    }

    #[inline(always)]
    fn sum(sums: Sums) -> u64 {
        let all = sums.into_iter().fold(u64x2_splat(0), |all, [a, b]| u64x2_add(all, u64x2_add(a, b)));
        u64x2_extract_lane::<0>(all) + u64x2_extract_lane::<1>(all)
    }
}
