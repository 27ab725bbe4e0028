//! chunk of a unit -> partial: the twin of `shaders/reduce_units.wgsl`.

mod scattered;
mod short;

use crate::clip::Kind;
use crate::layout::{CHUNK, COLUMNS, Partial};
use crate::segments::UnitView;

use super::element::Element;
use super::lanes::{Bits, INFINITY_BITS};
use super::reduce::{self, Scratch};

pub(super) use scattered::groups_at_once;
use scattered::scattered;

/// Units up to this long are added up where they are, longer ones by vectors.
const SHORT: u64 = 64;

/// Chunk `chunk` of the units from `first` to before `end`, each into one partial.
pub(crate) fn reduce<T: Element>(
    elements: &[T],
    view: &UnitView,
    chunk: u64,
    (first, end): (u64, u64),
    kind: Kind,
    scratch: &mut Scratch,
    partials: &mut [Partial],
) {
    let from = chunk * u64::from(CHUNK);
    let len = (view.len - from).min(u64::from(CHUNK));
    let power = matches!(kind, Kind::P(_));
    if view.contiguous() {
        let (first, partials) = match len <= SHORT && !power {
            true => short::transposed(elements, view, len as usize, first, kind, scratch.largest, partials),
            false => (first, partials),
        };
        for (unit, to) in (first..end).zip(partials) {
            let at = (view.kept.at(unit) + from) as usize;
            let own = &elements[at..at + len as usize];
            let short = len <= SHORT && !power;
            *to = if short {
                singles(own, kind, scratch.largest)
            } else {
                reduce::reduce(own, &[], kind, scratch)
            };
        }
        return;
    }
    scattered(elements, view, (from, len), first, kind, scratch, partials);
}

/// At most [`COLUMNS`] elements: each is a column of its own, so nothing is aligned within one.
fn singles<T: Element>(elements: &[T], kind: Kind, largest: u32) -> Partial {
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
    if kind == Kind::Inf {
        return Partial { lo: 0, hi: 0, exponent: top, non_finite };
    }
    let field = |m: u32| (m >> 23).max(1);
    let exponent = field(top);
    let term = |m: u32| {
        let mantissa = u64::from(m - ((field(m) - 1) << 23));
        let term = if kind == Kind::One { mantissa << 24 } else { mantissa * mantissa };
        term >> (kind.align() * (exponent - field(m))).min(63)
    };
    let sum: u64 = finite().map(term).sum();
    Partial { lo: sum as u32, hi: (sum >> 32) as u32, exponent, non_finite }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::random::words;

    /// Units that are turned round have the sums of those that are not, whatever is left over and wherever one is not finite.
    #[test]
    fn transposed_units_are_singles() {
        let mut word = words(8);
        let mut scratch = Scratch::new();
        for len in [1, 2, 25, 31, SHORT] {
            for units in [1, 15, 16, 40] {
                let view = UnitView::of(&[units, len], crate::clip::Units::OutputFirst).expect("a view");
                let mut all: Vec<f32> =
                    (0..units * len).map(|_| f32::from_bits(word() & 0xbfff_ffff)).collect();
                if units == 40 {
                    all[(17 * len) as usize] = f32::NAN;
                }
                let mut halves: Vec<half::f16> = all.iter().map(|&x| half::f16::from_f32(x)).collect();
                halves.iter_mut().for_each(|x| *x = if x.is_infinite() { half::f16::ONE } else { *x });
                for kind in [Kind::One, Kind::Two, Kind::Inf] {
                    check(&all, &view, kind, &mut scratch);
                    check(&halves, &view, kind, &mut scratch);
                }
            }
        }
    }

    fn check<T: Element>(elements: &[T], view: &UnitView, kind: Kind, scratch: &mut Scratch) {
        let mut partials = vec![bytemuck::Zeroable::zeroed(); view.units as usize];
        reduce(elements, view, 0, (0, view.units), kind, scratch, &mut partials);
        let right = elements.chunks(view.len as usize).map(|unit| singles(unit, kind, scratch.largest));
        assert_eq!(partials, right.collect::<Vec<_>>(), "{view:?} {kind:?}");
    }

    /// A short unit's sum is that of the columns, at any length and for any bits.
    #[test]
    fn singles_are_columns_of_one() {
        let mut word = words(3);
        let mut next = || f32::from_bits(word());
        let mut scratch = Scratch::new();
        for len in 1..=SHORT as usize {
            let unit: Vec<f32> = (0..len).map(|_| next()).collect();
            for kind in [Kind::One, Kind::Two, Kind::Inf] {
                assert_eq!(
                    singles(&unit, kind, scratch.largest),
                    reduce::reduce(&unit, &[], kind, &mut scratch),
                    "{len} {kind:?}"
                );
            }
        }
    }
}
