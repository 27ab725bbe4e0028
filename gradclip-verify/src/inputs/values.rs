//! The numbers of a case: magnitudes, bit patterns, and what is not finite, from fixed seeds.

use half::{bf16, f16};

use crate::inputs::Random;
use crate::tensor::{Data, Element};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Values {
    /// Evenly spread over ± this.
    Spread(f32),
    Subnormal,
    /// Small, but for a few that are 10²³ times larger.
    Spikes,
    /// Any finite bit pattern.
    Bits,
    Zeros,
    OneInf,
    OneNan,
    Both,
}

impl Values {
    pub(crate) fn data(self, random: &mut Random, element: Element, size: usize) -> Data {
        let mut bits = |_| self.bits(random, element);
        match element {
            Element::F64 | Element::F32 => Data::F32((0..size).map(|i| f32::from_bits(bits(i))).collect()),
            Element::F16 => Data::F16((0..size).map(|i| f16::from_bits(bits(i) as u16)).collect()),
            Element::Bf16 => Data::Bf16((0..size).map(|i| bf16::from_bits(bits(i) as u16)).collect()),
        }
    }

    fn bits(self, random: &mut Random, element: Element) -> u32 {
        let (sign, exponents) = match element {
            Element::F64 | Element::F32 => (31, 255),
            Element::F16 => (15, 31),
            Element::Bf16 => (15, 255),
        };
        let mantissa = element.mantissa_bits();
        let raw = (random.bits() >> 32) as u32;
        let packed =
            |exponent: u32| (raw & (1 << sign)) | (exponent << mantissa) | (raw & ((1 << mantissa) - 1));
        match self {
            Values::Zeros => raw & (1 << sign),
            Values::Subnormal => packed(0),
            Values::Bits => packed(random.below(exponents) as u32),
            Values::Spread(scale) => rounded(element, random.unit() * fit(element, scale)),
            Values::Spikes if random.below(500) == 0 => rounded(element, random.unit() * fit(element, 1e20)),
            Values::Spikes => rounded(element, random.unit() * fit(element, 1e-3)),
            _ => rounded(element, random.unit()),
        }
    }

    /// What replaces an element each of two tensors.
    pub(crate) fn non_finite(self) -> &'static [f32] {
        match self {
            Values::OneInf => &[f32::NEG_INFINITY],
            Values::OneNan => &[f32::NAN],
            Values::Both => &[f32::NAN, f32::INFINITY],
            _ => &[],
        }
    }
}

/// Replaces the last element.
pub(crate) fn spoil(data: &mut Data, value: f32) {
    match data {
        Data::F64(e) => e.iter_mut().rev().take(1).for_each(|e| *e = value.into()),
        Data::F32(e) => e.iter_mut().rev().take(1).for_each(|e| *e = value),
        Data::F16(e) => e.iter_mut().rev().take(1).for_each(|e| *e = f16::from_f32(value)),
        Data::Bf16(e) => e.iter_mut().rev().take(1).for_each(|e| *e = bf16::from_f32(value)),
    }
}

/// As large as the format can hold.
fn fit(element: Element, scale: f32) -> f32 {
    if element == Element::F16 { scale.clamp(1e-7, 6e4) } else { scale }
}

fn rounded(element: Element, value: f32) -> u32 {
    match element {
        Element::F64 | Element::F32 => value.to_bits(),
        Element::F16 => f16::from_f32(value).to_bits().into(),
        Element::Bf16 => bf16::from_f32(value).to_bits().into(),
    }
}
