//! Element types as `f32` bits and back.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::lanes::{
    Bf16Bits, Bits, ByLanes, F16Bits, LANES, Lanes, bf16_toward_zero, by_lanes, f16_toward_zero,
};

/// `f32`, [`f16`] or [`bf16`].
pub(crate) trait Element: Copy + Send + Sync {
    /// The bits of the `f32` equal to this element.
    fn f32_bits(self) -> u32;
    /// The elements as `f32` bits, where they are.
    fn as_f32_bits(_: &[Self]) -> Option<&[u32]> {
        None
    }
    /// What it is in memory.
    type Bits: Bits;
    fn bits(elements: &[Self]) -> &[Self::Bits];
    fn bits_mut(elements: &mut [Self]) -> &mut [Self::Bits];
    /// Whether many elements at once are converted faster than one by one.
    const BY_SLICES: bool = false;
    /// Writes the elements as `f32`; both slices are of one length.
    fn widen(elements: &[Self], to: &mut [f32]) {
        by_lanes(Widen(Self::bits(elements), bytemuck::cast_slice_mut(to)));
    }
    /// The largest finite element.
    const LARGEST: f32;
    /// The nearest element, ties to even.
    fn from_f32(value: f32) -> Self;
    /// The largest element not above a finite value in magnitude.
    fn toward_zero(value: f32) -> Self;
    /// Writes the nearest elements, ties to even; both slices are of one length.
    fn narrow(values: &[f32], to: &mut [Self]) {
        by_lanes(Narrow(bytemuck::cast_slice(values), Self::bits_mut(to)));
    }
}

impl Element for f32 {
    #[inline(always)]
    fn f32_bits(self) -> u32 {
        self.to_bits()
    }

    fn as_f32_bits(elements: &[f32]) -> Option<&[u32]> {
        Some(bytemuck::cast_slice(elements))
    }

    type Bits = u32;

    fn bits(elements: &[f32]) -> &[u32] {
        bytemuck::cast_slice(elements)
    }

    fn bits_mut(elements: &mut [f32]) -> &mut [u32] {
        bytemuck::cast_slice_mut(elements)
    }

    const LARGEST: f32 = f32::MAX;

    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        value
    }

    #[inline(always)]
    fn toward_zero(value: f32) -> Self {
        value
    }
}

impl Element for f16 {
    const BY_SLICES: bool = true;

    type Bits = F16Bits;

    fn bits(elements: &[f16]) -> &[F16Bits] {
        bytemuck::cast_slice(elements)
    }

    fn bits_mut(elements: &mut [f16]) -> &mut [F16Bits] {
        bytemuck::cast_slice_mut(elements)
    }

    #[inline(always)]
    fn f32_bits(self) -> u32 {
        Self::bits(&[self])[0].f32_bits()
    }

    fn widen(elements: &[f16], to: &mut [f32]) {
        elements.convert_to_f32_slice(to);
    }

    const LARGEST: f32 = 65_504.0;

    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        f16::from_f32(value)
    }

    fn toward_zero(value: f32) -> Self {
        f16_toward_zero(value)
    }

    fn narrow(values: &[f32], to: &mut [f16]) {
        to.convert_from_f32_slice(values);
    }
}

impl Element for bf16 {
    type Bits = Bf16Bits;

    fn bits(elements: &[bf16]) -> &[Bf16Bits] {
        bytemuck::cast_slice(elements)
    }

    fn bits_mut(elements: &mut [bf16]) -> &mut [Bf16Bits] {
        bytemuck::cast_slice_mut(elements)
    }

    #[inline(always)]
    fn f32_bits(self) -> u32 {
        u32::from(self.to_bits()) << 16
    }

    const LARGEST: f32 = f32::from_bits(0x7f7f_0000);

    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        bf16::from_f32(value)
    }

    fn toward_zero(value: f32) -> Self {
        bf16_toward_zero(value)
    }
}

/// Elements to the bits of as many `f32`.
struct Widen<'a, B>(&'a [B], &'a mut [u32]);

impl<B: Bits> ByLanes for Widen<'_, B> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let ((from, from_rest), (to, to_rest)) = (self.0.as_chunks(), self.1.as_chunks_mut());
        from.iter().zip(to).for_each(|(from, to)| B::load::<L>(from).store(to));
        let mut last = [0; LANES];
        B::load::<L>(&B::padded(from_rest)).store(&mut last);
        to_rest.copy_from_slice(&last[..to_rest.len()]);
    }
}

/// The bits of `f32` to as many nearest elements.
struct Narrow<'a, B>(&'a [u32], &'a mut [B]);

impl<B: Bits> ByLanes for Narrow<'_, B> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let ((from, from_rest), (to, to_rest)) = (self.0.as_chunks(), self.1.as_chunks_mut());
        from.iter().zip(to).for_each(|(from, to)| B::store(L::load(from), to));
        let mut last = [B::zeroed(); LANES];
        B::store(L::load(&u32::padded(from_rest)), &mut last);
        to_rest.copy_from_slice(&last[..to_rest.len()]);
    }
}
