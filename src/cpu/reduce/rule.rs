//! How the columns of a chunk are added up, by norm.

use crate::cpu::lanes::Lanes;

/// How a norm adds up the elements of a column.
pub(super) trait Rule {
    /// Powers of two by which one step of the exponent moves a sum.
    const ALIGN: u32;
    /// Bits below an element's mantissa.
    const GUARD: u32;
    /// Whether `q` is below 2^31, as a conversion from `f32` wants it.
    const CONVERTS: bool;
    fn add<L: Lanes>(q: L, sum: L::Wide) -> L::Wide;
    /// Adds a column of one element, by its mantissa, divided by 2^by.
    fn add_single<L: Lanes>(mantissa: L, by: L, sum: L::Wide) -> L::Wide;
    /// Powers of two by which a column's mantissa is its sum multiplied, and divided.
    const LEFT: u32;
    const RIGHT: u32;
}

pub(super) struct One;
pub(super) struct Two;
pub(super) struct Inf;

impl Rule for One {
    const ALIGN: u32 = 1;
    const GUARD: u32 = 8;
    const CONVERTS: bool = false;
    const LEFT: u32 = 16;
    const RIGHT: u32 = 0;

    #[inline(always)]
    fn add<L: Lanes>(q: L, sum: L::Wide) -> L::Wide {
        q.add_to(sum)
    }

    #[inline(always)]
    fn add_single<L: Lanes>(mantissa: L, by: L, sum: L::Wide) -> L::Wide {
        mantissa.add_product_to(L::splat(1 << 24), by, sum)
    }
}

impl Rule for Two {
    const ALIGN: u32 = 2;
    const GUARD: u32 = 4;
    const CONVERTS: bool = true;
    const LEFT: u32 = 0;
    const RIGHT: u32 = 8;

    #[inline(always)]
    fn add<L: Lanes>(q: L, sum: L::Wide) -> L::Wide {
        q.add_square_to(sum)
    }

    #[inline(always)]
    fn add_single<L: Lanes>(mantissa: L, by: L, sum: L::Wide) -> L::Wide {
        mantissa.add_product_to(mantissa, by.shl::<1>(), sum)
    }
}

impl Rule for Inf {
    const ALIGN: u32 = 0;
    const GUARD: u32 = 0;
    const CONVERTS: bool = false;
    const LEFT: u32 = 0;
    const RIGHT: u32 = 0;

    #[inline(always)]
    fn add<L: Lanes>(_: L, sum: L::Wide) -> L::Wide {
        sum
    }

    #[inline(always)]
    fn add_single<L: Lanes>(_: L, _: L, sum: L::Wide) -> L::Wide {
        sum
    }
}
