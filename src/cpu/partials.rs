//! chunk -> partial, over all tensors: the work, and how threads share it.

use bytemuck::Zeroable;
use rayon::prelude::*;

use crate::clip::Kind;
use crate::layout::{CHUNK, Partial};
use crate::segments::{Owner, UnitView};

use super::Values;
use super::lanes::LANES;
use super::reduce::Scratch;
use super::stages::{SEQUENTIAL, Source, elements};
use super::units::groups_at_once;

/// Elements of a portion of work: several for every thread, and so many that what is fetched beyond a
/// portion's end does not count.
fn portion(elements: u64) -> u64 {
    let least = 4 * u64::from(CHUNK);
    let even = elements / (8 * rayon::current_num_threads() as u64);
    (even / least * least).clamp(least, 4 * least)
}

/// Consecutive partials of one tensor.
struct Work {
    source: usize,
    chunk: u64,
    what: Runs,
    partials: usize,
    elements: u64,
}

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
        sources: &[Source<'_>],
        next: Values<'_>,
        kind: Kind,
        scratch: &mut Scratch,
        to: &mut [Partial],
    ) {
        let Source { values, largest, .. } = sources[self.source];
        scratch.largest = largest;
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
    fn first<'a>(&self, sources: &[Source<'a>]) -> Values<'a> {
        match self.what {
            Runs::Chunks => sources[self.source].values.chunk(self.chunk * u64::from(CHUNK)),
            Runs::Units(..) => Values::F32(&[]),
        }
    }
}

/// All there is to reduce, in the order of partials and in pieces of at most `portion` elements.
fn work_of(sources: &[Source<'_>], portion: u64) -> Vec<Work> {
    let mut work = Vec::with_capacity(sources.len());
    for (source, s) in sources.iter().enumerate() {
        match s.owner {
            Owner::One(_) => {
                let len = s.values.len() as u64;
                work.extend((0..len).step_by(portion as usize).map(|first| {
                    let elements = portion.min(len - first);
                    let partials = elements.div_ceil(u64::from(CHUNK)) as usize;
                    Work { source, chunk: first / u64::from(CHUNK), what: Runs::Chunks, partials, elements }
                }));
            }
            Owner::Units { view, .. } => {
                let len = view.len.clamp(1, u64::from(CHUNK));
                // Units that lie side by side are gathered by so many.
                let group = if view.contiguous() { 1 } else { groups_at_once(len) * LANES as u64 };
                let at_once = (portion / len).next_multiple_of(group).max(group);
                for chunk in 0..view.chunks() {
                    work.extend((0..view.units).step_by(at_once as usize).map(|first| {
                        let units = at_once.min(view.units - first);
                        let what = Runs::Units(view, (first, first + units));
                        Work { source, chunk, what, partials: units as usize, elements: units * len }
                    }));
                }
            }
        }
    }
    work
}

/// One record a chunk.
pub(super) fn partials(sources: &[Source<'_>], kind: Kind) -> Vec<Partial> {
    let portion = portion(elements(sources));
    let work = work_of(sources, portion);
    let mut all = vec![Partial::zeroed(); work.iter().map(|w| w.partials).sum()];
    if elements(sources) <= SEQUENTIAL {
        run_all(&work, None, &mut all, sources, kind, &mut Scratch::new());
        return all;
    }
    let portions = portions(&work, &mut all, portion);
    portions.into_par_iter().for_each_init(Scratch::new, |scratch, (work, after, to)| {
        run_all(work, after, to, sources, kind, scratch);
    });
    all
}

/// `after` is the work of whoever comes next, most likely the same thread.
fn run_all(
    work: &[Work],
    after: Option<&Work>,
    mut to: &mut [Partial],
    sources: &[Source<'_>],
    kind: Kind,
    scratch: &mut Scratch,
) {
    for (i, w) in work.iter().enumerate() {
        let (own, rest) = to.split_at_mut(w.partials);
        let next = work.get(i + 1).or(after).map_or(Values::F32(&[]), |next| next.first(sources));
        w.run(sources, next, kind, scratch, own);
        to = rest;
    }
}

/// Neighbouring work, the first of what follows, and where the partials go.
type Portion<'a> = (&'a [Work], Option<&'a Work>, &'a mut [Partial]);

/// Neighbouring work of about `portion` elements together, with where it goes: work is split by elements,
/// not by tensors.
fn portions<'a>(mut work: &'a [Work], mut to: &'a mut [Partial], portion: u64) -> Vec<Portion<'a>> {
    let mut portions = Vec::new();
    while !work.is_empty() {
        let (mut count, mut elements, mut partials) = (0, 0, 0);
        while count < work.len() && elements < portion {
            elements += work[count].elements;
            partials += work[count].partials;
            count += 1;
        }
        let (own, after) = work.split_at(count);
        let (own_to, after_to) = to.split_at_mut(partials);
        portions.push((own, after.first(), own_to));
        (work, to) = (after, after_to);
    }
    portions
}
