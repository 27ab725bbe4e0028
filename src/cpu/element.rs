//! Element types as `f32` bits and back.

use half::{bf16, f16};

use super::grads::Block;

/// `f32`, [`f16`] or [`bf16`].
pub(crate) trait Element: Copy + Send + Sync {
    /// The bits of the `f32` equal to this element.
    fn f32_bits(self) -> u32;
    /// The elements as `f32` bits, where they are.
    fn as_f32_bits(_: &[Self]) -> Option<&[u32]> {
        None
    }
    /// The nearest element, ties to even.
    fn from_f32(value: f32) -> Self;
    /// The elements as a [`Block`].
    fn block(elements: &mut [Self]) -> Block<'_>;
}

impl Element for f32 {
    #[inline(always)]
    fn f32_bits(self) -> u32 {
        self.to_bits()
    }

    fn as_f32_bits(elements: &[f32]) -> Option<&[u32]> {
        Some(bytemuck::cast_slice(elements))
    }

    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        value
    }

    #[inline(always)]
    fn block(elements: &mut [f32]) -> Block<'_> {
        Block::F32(elements)
    }
}

impl Element for f16 {
    // Integer code without branches, so that the loops around it vectorise; `half` calls a
    // conversion instruction element by element after a runtime check.
    #[inline(always)]
    fn f32_bits(self) -> u32 {
        let half = u32::from(self.to_bits());
        let (sign, bits) = ((half & 0x8000) << 16, half & 0x7fff);
        let normal = (bits << 13) + (112 << 23);
        let top = 31 - (bits | 1).leading_zeros();
        let subnormal = ((103 + top) << 23) | ((bits << (23 - top.min(23))) & 0x7f_ffff);
        let special = 0x7f80_0000 | ((bits & 0x3ff) << 13);
        let small = if bits == 0 { 0 } else { subnormal };
        let finite = if bits >= 0x400 { normal } else { small };
        sign | if bits >= 0x7c00 { special } else { finite }
    }

    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        f16::from_f32(value)
    }

    #[inline(always)]
    fn block(elements: &mut [f16]) -> Block<'_> {
        Block::F16(elements)
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn f32_bits(self) -> u32 {
        u32::from(self.to_bits()) << 16
    }

    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        bf16::from_f32(value)
    }

    #[inline(always)]
    fn block(elements: &mut [bf16]) -> Block<'_> {
        Block::Bf16(elements)
    }
}
