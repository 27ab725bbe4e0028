//! Elements times factors, by lanes.

use crate::cpu::element::Element;
use crate::cpu::lanes::{Bits, ByLanes, LANES, Lanes, by_lanes};

/// What elements are multiplied by.
pub(super) trait Factors: Copy {
    fn load<L: Lanes>(self, line: usize) -> L;
}

impl Factors for f32 {
    #[inline(always)]
    fn load<L: Lanes>(self, _: usize) -> L {
        L::splat(self.to_bits())
    }
}

impl Factors for &[[u32; LANES]] {
    #[inline(always)]
    fn load<L: Lanes>(self, line: usize) -> L {
        L::load(&self[line])
    }
}

/// Multiplies in place, rounded to nearest or towards zero. To nearest, factors are at most 1.
pub(super) fn multiply<T: Element>(elements: &mut [T], factors: impl Factors, toward_zero: bool) {
    let elements = T::bits_mut(elements);
    match toward_zero {
        true => by_lanes(Product::<_, _, true> { elements, factors }),
        false => by_lanes(Product::<_, _, false> { elements, factors }),
    }
}

struct Product<'a, E, F, const TOWARD_ZERO: bool> {
    elements: &'a mut [E],
    factors: F,
}

impl<E: Bits, F: Factors, const TOWARD_ZERO: bool> Product<'_, E, F, TOWARD_ZERO> {
    // A closure would not be compiled for the processor's registers.
    #[inline(always)]
    fn change<L: Lanes>(factors: F, number: usize, line: &mut [E; LANES]) {
        let (given, factor) = (E::load::<L>(line), factors.load::<L>(number));
        match TOWARD_ZERO {
            true => E::store_toward_zero(given.times_toward_zero(factor), line),
            false => E::store(given.times(factor), line),
        }
    }
}

impl<E: Bits, F: Factors, const TOWARD_ZERO: bool> ByLanes for Product<'_, E, F, TOWARD_ZERO> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let (lines, rest) = self.elements.as_chunks_mut::<LANES>();
        let whole = lines.len();
        for (number, line) in lines.iter_mut().enumerate() {
            Self::change::<L>(self.factors, number, line);
        }
        if rest.is_empty() {
            return;
        }
        let mut line = E::padded(rest);
        Self::change::<L>(self.factors, whole, &mut line);
        rest.copy_from_slice(&line[..rest.len()]);
    }
}
