//! chunk of a unit -> partial: the twin of `shaders/reduce_units.wgsl`.

use std::cell::Cell;

use crate::clip::Kind;
use crate::layout::{CHUNK, COLUMNS, Partial};
use crate::segments::UnitView;

use super::element::Element;
use super::lanes::{Bits, ByLanes, LANES, Lanes, by_lanes};
use super::reduce::{self, Scratch};

const INFINITY_BITS: u32 = 0x7f80_0000;
/// Units up to this long are added up where they are, longer ones by vectors.
const SHORT: u64 = 32;
/// Groups of neighbouring units that are gathered at once, at most, and elements of theirs: what a core's second cache
/// holds.
const AT_ONCE: u64 = 4;
const GATHERED: u64 = 1 << 18;
/// Elements of a unit that are asked for before they are read.
const AHEAD: u64 = 12;

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
    let mut gathered = GATHERED_LINES.take();
    let few = groups_at_once(len) as usize;
    for (unit, to) in (first..end).step_by(few * LANES).zip(partials.chunks_mut(few * LANES)) {
        // Neither any p nor a group with a step between its units goes by lanes.
        let whole = if power { 0 } else { (to.len() / LANES) as u64 };
        let lanes = LANES as u64;
        let groups =
            (1..=whole).rev().find(|&groups| neighbours(view, unit, groups * lanes)).unwrap_or(0) as usize;
        gathered.resize(groups * len as usize * LANES, 0);
        let lines: &mut [T::Bits] =
            &mut bytemuck::cast_slice_mut(&mut gathered)[..groups * len as usize * LANES];
        let (lines, _) = lines.as_chunks_mut::<LANES>();
        let origin = view.kept.at(unit);
        by_lanes(Gathering { elements: T::bits(elements), view, origin, chunk: (from, len), to: lines });
        let mut lines = lines.chunks(len as usize);
        for (own, unit) in to.chunks_mut(LANES).zip((unit..).step_by(LANES)) {
            let all = lines.next().and_then(|lines| reduce::side_by_side(lines, kind, scratch.largest));
            match all {
                Some(all) => own.copy_from_slice(&all),
                None => one_by_one(elements, view, unit, (from, len), kind, scratch, own),
            }
        }
    }
    GATHERED_LINES.set(gathered);
}

thread_local! {
    /// At most [`GATHERED`] elements, or those of a group of chunks, kept: memory as new as it is large comes page by page.
    static GATHERED_LINES: Cell<Vec<u32>> = const { Cell::new(Vec::new()) };
}

/// Groups of units with chunks of so many elements that are gathered at once.
pub(super) fn groups_at_once(len: u64) -> u64 {
    (GATHERED / (len * LANES as u64)).clamp(1, AT_ONCE)
}

/// Whether the units' elements lie side by side.
fn neighbours(view: &UnitView, first: u64, units: u64) -> bool {
    let origin = view.kept.at(first);
    (0..units).all(|k| view.kept.at(first + k) == origin + k)
}

/// The elements `from` to before `from + len` of neighbouring units, taken group after group of as many as there are lanes.
/// Memory is read by as much at a time as there are groups: each line may lie in a page of its own.
struct Gathering<'a, E> {
    elements: &'a [E],
    view: &'a UnitView,
    origin: u64,
    chunk: (u64, u64),
    to: &'a mut [[E; LANES]],
}

impl<E: Bits> ByLanes for Gathering<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Gathering { elements, view, origin, chunk: (from, len), to } = self;
        let groups = to.len() / len as usize;
        if groups == 0 {
            return;
        }
        let low = view.reduced.low;
        let mut i = 0;
        while i < len {
            // As far as elements of a unit lie one stride apart.
            let run = (low.size - (from + i) % low.size).min(len - i);
            let begin = origin + view.reduced.at(from + i);
            for k in 0..run {
                let at = |k: u64| (begin + k * low.stride) as usize;
                let (lines, _) = elements[at(k)..][..groups * LANES].as_chunks::<LANES>();
                let (next, _) =
                    elements[at((k + AHEAD).min(run - 1))..][..groups * LANES].as_chunks::<LANES>();
                for (g, (line, next)) in lines.iter().zip(next).enumerate() {
                    L::prefetch(next);
                    to[(g as u64 * len + i + k) as usize] = *line;
                }
            }
            i += run;
        }
    }
}

/// Units of which one has what is not finite, or which do not lie side by side.
fn one_by_one<T: Element>(
    elements: &[T],
    view: &UnitView,
    unit: u64,
    (from, len): (u64, u64),
    kind: Kind,
    scratch: &mut Scratch,
    partials: &mut [Partial],
) {
    let origins: [u64; LANES] = std::array::from_fn(|k| view.kept.at(unit + k as u64));
    let mut gathered: [Vec<T>; LANES] = std::array::from_fn(|_| Vec::with_capacity(len as usize));
    for i in from..from + len {
        let offset = view.reduced.at(i);
        for (own, origin) in gathered.iter_mut().zip(&origins).take(partials.len()) {
            own.push(elements[(origin + offset) as usize]);
        }
    }
    for (own, to) in gathered.iter().zip(partials) {
        *to = reduce::reduce(own, &[], kind, scratch);
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
    use crate::cpu::random::words;

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
