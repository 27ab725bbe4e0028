//! chunk -> partial, over all tensors: the work, and how threads share it.

use std::ops::Range;

use crate::clip::Kind;
use crate::layout::{CHUNK, Partial};
use crate::segments::{Owner, UnitView};

use super::Values;
use super::lanes::LANES;
use super::reduce::Scratch;
use super::stages::{Given, SEQUENTIAL, Source, elements};
use super::threads;
use super::units::groups_at_once;

/// Elements of a portion of work: several for every thread, and so many that what is fetched beyond a
/// portion's end does not count.
fn portion(elements: u64) -> u64 {
    let least = 4 * u64::from(CHUNK);
    let even = elements / (8 * threads::count() as u64);
    (even / least * least).clamp(least, 4 * least)
}

/// Consecutive partials of one tensor.
#[derive(Debug)]
struct Work {
    /// Number of the tensor.
    number: usize,
    chunk: u64,
    what: Runs,
    partials: usize,
    elements: u64,
}

#[derive(Debug)]
enum Runs {
    /// So many chunks from the first on.
    Chunks,
    /// A range of units, of which that one chunk is meant.
    Units(UnitView, (u64, u64)),
}

impl Work {
    /// `next` is what will be read after it.
    fn run(
        &self,
        given: &Given<'_>,
        next: Values<'_>,
        kind: Kind,
        scratch: &mut Scratch,
        to: &mut [Partial],
    ) {
        let values = given.values(self.number);
        scratch.largest = given.largest(self.number);
        match &self.what {
            Runs::Chunks => {
                let count = to.len() as u64;
                for (i, to) in (0..).zip(to) {
                    let at = |i: u64| values.chunk((self.chunk + i) * u64::from(CHUNK));
                    *to = at(i).reduce(if i + 1 < count { at(i + 1) } else { next }, kind, scratch);
                }
            }
            Runs::Units(view, range) => values.reduce_units(view, self.chunk, *range, kind, scratch, to),
        }
    }

    /// The first chunk that it reads, where it reads chunks.
    fn first<'a>(&self, given: &Given<'a>) -> Values<'a> {
        match self.what {
            Runs::Chunks => given.values(self.number).chunk(self.chunk * u64::from(CHUNK)),
            Runs::Units(..) => Values::F32(&[]),
        }
    }
}

/// Neighbouring work of about as many elements as other portions have: work is split by elements, not by tensors.
#[derive(Debug)]
struct Portion {
    work: Range<usize>,
    partials: Range<usize>,
}

/// All there is to reduce.
#[derive(Debug)]
pub(super) struct Reduction {
    /// In the order of partials.
    work: Vec<Work>,
    /// None where one thread does it all.
    portions: Vec<Portion>,
    /// Number of partials.
    pub(super) count: usize,
}

impl Reduction {
    pub(super) fn new(sources: &[Source]) -> Reduction {
        let elements = elements(sources);
        let portion = portion(elements);
        let work = work_of(sources, portion);
        let portions = if elements > SEQUENTIAL { portions(&work, portion) } else { Vec::new() };
        Reduction { count: work.iter().map(|w| w.partials).sum(), work, portions }
    }

    /// One record a chunk.
    pub(super) fn run(&self, given: &Given<'_>, kind: Kind, to: &mut [Partial]) {
        match &self.portions[..] {
            [] => self.run_work(0..self.work.len(), given, kind, to),
            portions => self.run_portions(portions, given, kind, to),
        }
    }

    fn run_portions(&self, portions: &[Portion], given: &Given<'_>, kind: Kind, to: &mut [Partial]) {
        if let [portion] = portions {
            return self.run_work(portion.work.clone(), given, kind, to);
        }
        let (before, after) = portions.split_at(portions.len() / 2);
        let partials = after.first().map_or(0, |p| p.partials.start) - before[0].partials.start;
        let (to_before, to_after) = to.split_at_mut(partials);
        threads::join(
            || self.run_portions(before, given, kind, to_before),
            || self.run_portions(after, given, kind, to_after),
        );
    }

    /// What comes after it is fetched early: most likely the same thread is next there.
    fn run_work(&self, range: Range<usize>, given: &Given<'_>, kind: Kind, mut to: &mut [Partial]) {
        let scratch = &mut Scratch::new();
        for (i, w) in range.clone().zip(&self.work[range]) {
            let (own, rest) = to.split_at_mut(w.partials);
            let next = self.work.get(i + 1).map_or(Values::F32(&[]), |next| next.first(given));
            w.run(given, next, kind, scratch, own);
            to = rest;
        }
    }
}

/// In pieces of at most `portion` elements.
fn work_of(sources: &[Source], portion: u64) -> Vec<Work> {
    let mut work = Vec::with_capacity(sources.len());
    for &Source { number, owner, elements: len, .. } in sources {
        match owner {
            Owner::One(_) => work.extend((0..len).step_by(portion as usize).map(|first| {
                let elements = portion.min(len - first);
                let partials = elements.div_ceil(u64::from(CHUNK)) as usize;
                Work { number, chunk: first / u64::from(CHUNK), what: Runs::Chunks, partials, elements }
            })),
            Owner::Units { view, .. } => {
                let len = view.len.clamp(1, u64::from(CHUNK));
                // Units that lie side by side are gathered by so many.
                let group = if view.contiguous() { 1 } else { groups_at_once(len) * LANES as u64 };
                let at_once = (portion / len).next_multiple_of(group).max(group);
                for chunk in 0..view.chunks() {
                    work.extend((0..view.units).step_by(at_once as usize).map(|first| {
                        let units = at_once.min(view.units - first);
                        let what = Runs::Units(view, (first, first + units));
                        Work { number, chunk, what, partials: units as usize, elements: units * len }
                    }));
                }
            }
        }
    }
    work
}

fn portions(work: &[Work], portion: u64) -> Vec<Portion> {
    let mut portions = Vec::new();
    let (mut at, mut first) = (0, 0);
    while at < work.len() {
        let (begin, mut elements, mut partials) = (at, 0, 0);
        while at < work.len() && elements < portion {
            elements += work[at].elements;
            partials += work[at].partials;
            at += 1;
        }
        portions.push(Portion { work: begin..at, partials: first..first + partials });
        first += partials;
    }
    portions
}
