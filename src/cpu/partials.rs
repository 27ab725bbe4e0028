//! chunk -> partial, over all tensors: the work, and how threads share it.

use std::ops::Range;

use crate::clip::Summation;
use crate::layout::{CHUNK, Partial};
use crate::segments::{Owner, Segments};

use super::block::Values;
use super::lanes::LANES;
use super::reduce::Scratch;
use super::sources::{Given, Source, elements};
use super::threads::{self, SEQUENTIAL};
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
    /// Number of its tensor, or of the parameter.
    number: u32,
    partials: u32,
    /// The first chunk, or that of each unit.
    chunk: u64,
    /// The first unit, where the source is cut into units.
    unit: u64,
    elements: u64,
}

/// What work is done on.
#[derive(Clone, Copy)]
pub(super) struct On<'a> {
    pub(super) parts: &'a Segments,
    pub(super) given: Given<'a>,
    pub(super) summation: Summation,
}

impl Work {
    /// `next` is what will be read after it.
    fn run(&self, on: On<'_>, next: Values<'_>, scratch: &mut Scratch, to: &mut [Partial]) {
        let (On { parts, given, summation }, number) = (on, self.number as usize);
        let values = given.values(number);
        scratch.largest = given.largest(number);
        match parts.owner_of(number) {
            Owner::One(_) => {
                let count = to.len() as u64;
                for (i, to) in (0..).zip(to) {
                    let at = |i: u64| values.chunk((self.chunk + i) * u64::from(CHUNK));
                    *to = at(i).reduce(if i + 1 < count { at(i + 1) } else { next }, summation, scratch);
                }
            }
            Owner::Units { view, .. } => {
                let range = (self.unit, self.unit + u64::from(self.partials));
                values.reduce_units(&view, self.chunk, range, summation, scratch, to);
            }
        }
    }

    /// The first chunk that it reads, where it reads chunks.
    fn first<'a>(&self, on: On<'a>) -> Values<'a> {
        let number = self.number as usize;
        match on.parts.owner_of(number) {
            Owner::One(_) => on.given.values(number).chunk(self.chunk * u64::from(CHUNK)),
            Owner::Units { .. } => Values::F32(&[]),
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
    pub(super) fn new(sources: &[Source], parts: &Segments) -> Reduction {
        let elements = elements(sources);
        let portion = portion(elements);
        let work = work_of(sources, parts, portion);
        let portions = if elements > SEQUENTIAL { portions(&work, portion) } else { Vec::new() };
        Reduction { count: work.iter().map(|w| w.partials as usize).sum(), work, portions }
    }

    /// One record a chunk.
    pub(super) fn run(&self, on: On<'_>, to: &mut [Partial]) {
        match &self.portions[..] {
            [] => self.run_work(0..self.work.len(), on, to),
            portions => self.run_portions(portions, on, to),
        }
    }

    fn run_portions(&self, portions: &[Portion], on: On<'_>, to: &mut [Partial]) {
        if let [portion] = portions {
            return self.run_work(portion.work.clone(), on, to);
        }
        let (before, after) = portions.split_at(portions.len() / 2);
        let partials = after.first().map_or(0, |p| p.partials.start) - before[0].partials.start;
        let (to_before, to_after) = to.split_at_mut(partials);
        threads::join(|| self.run_portions(before, on, to_before), || self.run_portions(after, on, to_after));
    }

    /// What comes after it is fetched early: most likely the same thread is next there.
    fn run_work(&self, range: Range<usize>, on: On<'_>, mut to: &mut [Partial]) {
        let scratch = &mut Scratch::new();
        for (i, w) in range.clone().zip(&self.work[range]) {
            let (own, rest) = to.split_at_mut(w.partials as usize);
            let next = self.work.get(i + 1).map_or(Values::F32(&[]), |next| next.first(on));
            w.run(on, next, scratch, own);
            to = rest;
        }
    }
}

/// In pieces of at most `portion` elements.
fn work_of(sources: &[Source], parts: &Segments, portion: u64) -> Vec<Work> {
    let mut work = Vec::with_capacity(sources.len());
    for &Source { number, elements: len, .. } in sources {
        let (owner, number) = (parts.owner_of(number), number as u32);
        match owner {
            Owner::One(_) => work.extend((0..len).step_by(portion as usize).map(|first| {
                let elements = portion.min(len - first);
                let partials = elements.div_ceil(u64::from(CHUNK)) as u32;
                Work { number, partials, chunk: first / u64::from(CHUNK), unit: 0, elements }
            })),
            Owner::Units { view, .. } => {
                let len = view.len.clamp(1, u64::from(CHUNK));
                // Units that lie side by side are gathered by so many.
                let group = if view.contiguous() { 1 } else { groups_at_once(len) * LANES as u64 };
                let at_once = (portion / len).next_multiple_of(group).max(group);
                for chunk in 0..view.chunks() {
                    work.extend((0..view.units).step_by(at_once as usize).map(|first| {
                        let units = at_once.min(view.units - first);
                        Work { number, partials: units as u32, chunk, unit: first, elements: units * len }
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
            partials += work[at].partials as usize;
            at += 1;
        }
        portions.push(Portion { work: begin..at, partials: first..first + partials });
        first += partials;
    }
    portions
}
