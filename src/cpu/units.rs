//! chunk of a unit -> partial: the twin of `shaders/reduce_units.wgsl`.

mod scattered;
mod short;
mod singles;

use crate::clip::Summation;
use crate::layout::{CHUNK, Partial};
use crate::segments::UnitView;

use super::block::{Values, not_here, with_elements};
use super::element::Element;
use super::reduce::{self, Scratch};

pub(super) use scattered::groups_at_once;
use scattered::scattered;
use singles::{SHORT, singles};

/// Chunk `chunk` of the units from `first` to before `end`, each into one partial.
pub(crate) fn reduce<T: Element>(
    elements: &[T],
    view: &UnitView,
    chunk: u64,
    (first, end): (u64, u64),
    summation: Summation,
    scratch: &mut Scratch,
    partials: &mut [Partial],
) {
    let from = chunk * u64::from(CHUNK);
    let len = (view.len - from).min(u64::from(CHUNK));
    let power = matches!(summation, Summation::P(_));
    if view.contiguous() {
        let (first, partials) = match len <= SHORT && !power {
            true => {
                short::transposed(elements, view, len as usize, first, summation, scratch.largest, partials)
            }
            false => (first, partials),
        };
        for (unit, to) in (first..end).zip(partials) {
            let at = (view.kept.at(unit) + from) as usize;
            let own = &elements[at..at + len as usize];
            let short = len <= SHORT && !power;
            *to = if short {
                singles(own, summation, scratch.largest)
            } else {
                reduce::reduce(own, &[], summation, scratch)
            };
        }
        return;
    }
    scattered(elements, view, (from, len), first, summation, scratch, partials);
}

impl Values<'_> {
    /// The partials of one chunk of each of the units in a range.
    pub(crate) fn reduce_units(
        &self,
        view: &UnitView,
        chunk: u64,
        range: (u64, u64),
        summation: Summation,
        scratch: &mut Scratch,
        partials: &mut [Partial],
    ) {
        with_elements!(
            Values,
            self,
            e => reduce(e, view, chunk, range, summation, scratch, partials),
            _e => not_here()
        );
    }
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
                for summation in [Summation::One, Summation::Two, Summation::Inf] {
                    check(&all, &view, summation, &mut scratch);
                    check(&halves, &view, summation, &mut scratch);
                }
            }
        }
    }

    fn check<T: Element>(elements: &[T], view: &UnitView, summation: Summation, scratch: &mut Scratch) {
        let mut partials = vec![bytemuck::Zeroable::zeroed(); view.units as usize];
        reduce(elements, view, 0, (0, view.units), summation, scratch, &mut partials);
        let right = elements.chunks(view.len as usize).map(|unit| singles(unit, summation, scratch.largest));
        assert_eq!(partials, right.collect::<Vec<_>>(), "{view:?} {summation:?}");
    }

    /// A short unit's sum is that of the columns, at any length and for any bits.
    #[test]
    fn singles_are_columns_of_one() {
        let mut word = words(3);
        let mut next = || f32::from_bits(word());
        let mut scratch = Scratch::new();
        for len in 1..=SHORT as usize {
            let unit: Vec<f32> = (0..len).map(|_| next()).collect();
            for summation in [Summation::One, Summation::Two, Summation::Inf] {
                assert_eq!(
                    singles(&unit, summation, scratch.largest),
                    reduce::reduce(&unit, &[], summation, &mut scratch),
                    "{len} {summation:?}"
                );
            }
        }
    }
}
