//! Exponents and mantissas of elements, by lanes.

use crate::cpu::lanes::Lanes;
use crate::layout::COLUMNS;

use super::rule::Rule;

pub(super) const COLUMNS_: usize = COLUMNS as usize;

#[inline(always)]
pub(super) fn exponents_of<L: Lanes>(tops: L) -> L {
    tops.shr::<23>().max(L::splat(1))
}

/// Exponent and mantissa of magnitudes.
#[inline(always)]
pub(super) fn parts<L: Lanes>(bits: L) -> (L, L) {
    let exponent = exponents_of(bits);
    (exponent, bits.sub(exponent.sub(L::splat(1)).shl::<23>()))
}

/// `q` of each lane: the mantissa with `GUARD` bits below it, aligned to the exponent.
#[inline(always)]
pub(super) fn aligned<L: Lanes, R: Rule>(bits: L, exponent: L) -> L {
    let (own, mantissa) = parts(bits);
    // GUARD is no argument of `shl`, which takes a constant.
    let guarded = if R::GUARD == 8 { mantissa.shl::<8>() } else { mantissa.shl::<4>() };
    guarded.shr_by(exponent.sub(own))
}
