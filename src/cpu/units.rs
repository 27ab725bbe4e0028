//! chunk of a unit -> partial: the twin of `shaders/reduce_units.wgsl`.

use crate::clip::Kind;
use crate::layout::{CHUNK, COLUMNS, Partial};
use crate::segments::UnitView;

use super::element::Element;
use super::reduce::{self, Scratch};

const INFINITY_BITS: u32 = 0x7f80_0000;
/// Units up to this long are added up where they are, longer ones by vectors.
const SHORT: u64 = 32;
/// Scattered units that are gathered side by side, so that each line of memory is read once.
const SIDE_BY_SIDE: usize = 16;

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
    let mut gathered: [Vec<T>; SIDE_BY_SIDE] = std::array::from_fn(|_| Vec::with_capacity(len as usize));
    for (unit, to) in (first..end).step_by(SIDE_BY_SIDE).zip(partials.chunks_mut(SIDE_BY_SIDE)) {
        let units = to.len();
        let origins: [u64; SIDE_BY_SIDE] = std::array::from_fn(|k| view.kept.at(unit + k as u64));
        gathered.iter_mut().for_each(Vec::clear);
        for i in from..from + len {
            let offset = view.reduced.at(i);
            for (own, origin) in gathered.iter_mut().zip(&origins).take(units) {
                own.push(elements[(origin + offset) as usize]);
            }
        }
        for (own, to) in gathered.iter().zip(to) {
            *to = reduce::reduce(own, &[], kind, scratch);
        }
    }
}

/// At most [`COLUMNS`] elements: each is a column of its own, so nothing is aligned within one.
fn singles<T: Element>(elements: &[T], kind: Kind, largest: u32) -> Partial {
    debug_assert!(elements.len() <= COLUMNS as usize);
    let magnitudes = || elements.iter().map(|e| e.f32_bits() & 0x7fff_ffff);
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

    /// A short unit's sum is that of the columns, at any length and for any bits.
    #[test]
    fn singles_are_columns_of_one() {
        let mut state = 3u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            f32::from_bits((state >> 32) as u32)
        };
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
