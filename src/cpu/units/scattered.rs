//! Units whose elements do not lie in one piece: a lane each where they lie side by side, else gathered one by one.

use std::cell::Cell;

use crate::clip::Summation;
use crate::cpu::element::Element;
use crate::cpu::lanes::{Bits, ByLanes, LANES, Lanes, by_lanes};
use crate::cpu::reduce::{self, Scratch};
use crate::layout::Partial;
use crate::segments::UnitView;

/// Groups of neighbouring units that are gathered at once, at most, and elements of theirs: what a core's second cache
/// holds.
const AT_ONCE: u64 = 4;
const GATHERED: u64 = 1 << 18;
/// Elements of a unit that are asked for before they are read.
const AHEAD: u64 = 12;

/// One chunk, from an element on and so long, of each of the units from `first` on, as many as there are partials.
pub(super) fn scattered<T: Element>(
    elements: &[T],
    view: &UnitView,
    (from, len): (u64, u64),
    first: u64,
    summation: Summation,
    scratch: &mut Scratch,
    partials: &mut [Partial],
) {
    let mut gathered = GATHERED_LINES.take();
    let at_once = groups_at_once(len) as usize * LANES;
    for (unit, to) in (first..).step_by(at_once).zip(partials.chunks_mut(at_once)) {
        let lines = groups_side_by_side(view, unit, to.len(), summation) * len as usize * LANES;
        // Of elements of 16 bits the first half.
        gathered.resize(lines, 0);
        let (lines, _) = bytemuck::cast_slice_mut::<_, T::Bits>(&mut gathered)[..lines].as_chunks_mut();
        let origin = view.kept.at(unit);
        by_lanes(Gathering { elements: T::bits(elements), view, origin, chunk: (from, len), to: lines });
        let mut lines = lines.chunks(len as usize);
        for (own, unit) in to.chunks_mut(LANES).zip((unit..).step_by(LANES)) {
            let all = lines.next().and_then(|lines| reduce::side_by_side(lines, summation, scratch.largest));
            match all {
                Some(all) => own.copy_from_slice(&all),
                None => one_by_one(elements, view, unit, (from, len), summation, scratch, own),
            }
        }
    }
    GATHERED_LINES.set(gathered);
}

/// How many groups of the units from one on lie side by side; none goes by lanes under any p.
fn groups_side_by_side(view: &UnitView, unit: u64, units: usize, summation: Summation) -> usize {
    let most = if matches!(summation, Summation::P(_)) { 0 } else { units / LANES };
    let side_by_side = |&groups: &usize| neighbours(view, unit, (groups * LANES) as u64);
    (1..=most).rev().find(side_by_side).unwrap_or(0)
}

thread_local! {
    /// At most [`GATHERED`] elements, or those of a group of chunks, kept: memory as new as it is large comes page by page.
    static GATHERED_LINES: Cell<Vec<u32>> = const { Cell::new(Vec::new()) };
}

/// Groups of units with chunks of so many elements that are gathered at once.
pub(crate) fn groups_at_once(len: u64) -> u64 {
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
    summation: Summation,
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
        *to = reduce::reduce(own, &[], summation, scratch);
    }
}
