//! Elements as they lie in memory, and as lanes.

use bytemuck::{Pod, Zeroable};
use half::{bf16, f16};

use crate::layout::COLUMNS;

use super::operations::{LANES, Lanes, widened_f16};

/// Of `f32`.
pub(crate) const INFINITY_BITS: u32 = 0x7f80_0000;
const MAGNITUDE: u32 = 0x7fff_ffff;

/// Elements as they lie in memory.
pub(crate) trait Bits: Pod {
    /// As many as a row of a chunk has.
    const ZEROS: &'static [Self; COLUMNS as usize];
    /// The bits of the `f32` equal to it.
    fn f32_bits(self) -> u32;
    /// The same of as many as there are lanes; a NaN may become another one.
    fn load<L: Lanes>(values: &[Self; LANES]) -> L;
    /// The nearest elements to lanes that are `f32`, ties to even.
    fn store<L: Lanes>(lanes: L, to: &mut [Self; LANES]);
    /// The largest elements not above the magnitudes of lanes that are `f32`.
    fn store_toward_zero<L: Lanes>(lanes: L, to: &mut [Self; LANES]);
    /// The bits without the sign.
    #[inline(always)]
    fn magnitude(self) -> u32 {
        self.f32_bits() & MAGNITUDE
    }
    #[inline(always)]
    fn magnitudes<L: Lanes>(values: &[Self; LANES]) -> L {
        Self::load::<L>(values).and(L::splat(MAGNITUDE))
    }
    /// Fewer elements than there are lanes, and zeros.
    #[inline(always)]
    fn padded(rest: &[Self]) -> [Self; LANES] {
        let mut line = [Self::zeroed(); LANES];
        line[..rest.len()].copy_from_slice(rest);
        line
    }
}

impl Bits for u32 {
    const ZEROS: &'static [u32; COLUMNS as usize] = &[0; _];

    #[inline(always)]
    fn f32_bits(self) -> u32 {
        self
    }

    #[inline(always)]
    fn load<L: Lanes>(values: &[u32; LANES]) -> L {
        L::load(values)
    }

    #[inline(always)]
    fn store<L: Lanes>(lanes: L, to: &mut [u32; LANES]) {
        lanes.store(to);
    }

    #[inline(always)]
    fn store_toward_zero<L: Lanes>(lanes: L, to: &mut [u32; LANES]) {
        lanes.store(to);
    }
}

/// Those of an `f16`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(transparent)]
pub(crate) struct F16Bits(u16);

/// Those of a `bf16`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(transparent)]
pub(crate) struct Bf16Bits(u16);

impl Bits for F16Bits {
    const ZEROS: &'static [F16Bits; COLUMNS as usize] = &[F16Bits(0); _];

    #[inline(always)]
    fn f32_bits(self) -> u32 {
        widened_f16(self.0)
    }

    #[inline(always)]
    fn load<L: Lanes>(values: &[F16Bits; LANES]) -> L {
        L::load_f16(bytemuck::cast_ref(values))
    }

    #[inline(always)]
    fn store<L: Lanes>(lanes: L, to: &mut [F16Bits; LANES]) {
        lanes.store_f16(bytemuck::cast_mut(to));
    }

    #[inline(always)]
    fn store_toward_zero<L: Lanes>(lanes: L, to: &mut [F16Bits; LANES]) {
        lanes.store_each(bytemuck::cast_mut(to), |value| f16_toward_zero(value).to_bits());
    }
}

impl Bits for Bf16Bits {
    const ZEROS: &'static [Bf16Bits; COLUMNS as usize] = &[Bf16Bits(0); _];

    #[inline(always)]
    fn f32_bits(self) -> u32 {
        u32::from(self.0) << 16
    }

    #[inline(always)]
    fn load<L: Lanes>(values: &[Bf16Bits; LANES]) -> L {
        L::load_bf16(bytemuck::cast_ref(values))
    }

    #[inline(always)]
    fn store<L: Lanes>(lanes: L, to: &mut [Bf16Bits; LANES]) {
        lanes.store_bf16(bytemuck::cast_mut(to));
    }

    #[inline(always)]
    fn store_toward_zero<L: Lanes>(lanes: L, to: &mut [Bf16Bits; LANES]) {
        lanes.store_each(bytemuck::cast_mut(to), |value| bf16_toward_zero(value).to_bits());
    }
}

/// The largest `f16` not above a finite value in magnitude.
pub(crate) fn f16_toward_zero(value: f32) -> f16 {
    let near = f16::from_f32(value);
    let above = f32::from(near).abs() > value.abs();
    if above { f16::from_bits(near.to_bits() - 1) } else { near }
}

/// The largest `bf16` not above a finite value in magnitude.
pub(crate) fn bf16_toward_zero(value: f32) -> bf16 {
    let near = bf16::from_f32(value);
    let above = f32::from(near).abs() > value.abs();
    if above { bf16::from_bits(near.to_bits() - 1) } else { near }
}
