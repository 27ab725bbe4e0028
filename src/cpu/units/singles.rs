//! Short units, added up where they are.

use crate::clip::Summation;
use crate::cpu::element::Element;
use crate::cpu::lanes::{Bits, INFINITY_BITS};
use crate::layout::{COLUMNS, Partial};

/// Units up to this long are added up where they are, longer ones by vectors.
pub(super) const SHORT: u64 = 64;

/// At most [`COLUMNS`] elements: each is a column of its own, so nothing is aligned within one.
pub(super) fn singles<T: Element>(elements: &[T], summation: Summation, largest: u32) -> Partial {
    debug_assert!(elements.len() <= COLUMNS as usize);
    let magnitudes = || T::bits(elements).iter().map(|e| e.magnitude());
    let finite = || magnitudes().map(|m| if m <= largest { m } else { 0 });
    let (mut non_finite, mut nan, mut top) = (0, 0, 0);
    for m in magnitudes() {
        non_finite += u32::from(m > largest);
        nan |= u32::from(m > INFINITY_BITS);
        top = top.max(if m <= largest { m } else { 0 });
    }
    let non_finite = non_finite | nan << 31;
    if summation == Summation::Inf {
        return Partial { lo: 0, hi: 0, exponent: top, non_finite };
    }
    let field = |m: u32| (m >> 23).max(1);
    let exponent = field(top);
    let term = |m: u32| {
        let mantissa = u64::from(m - ((field(m) - 1) << 23));
        let term = if summation == Summation::One { mantissa << 24 } else { mantissa * mantissa };
        term >> (summation.align() * (exponent - field(m))).min(63)
    };
    let sum: u64 = finite().map(term).sum();
    Partial { lo: sum as u32, hi: (sum >> 32) as u32, exponent, non_finite }
}
