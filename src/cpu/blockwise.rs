//! Many rows in place, block by block: measured, decided and changed while a core's second cache holds them.
//!
//! What becomes of a row depends on that row alone here, so nothing waits for the rows of other blocks, and no record of a row
//! outlives its block.

use std::cell::Cell;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

use bytemuck::Zeroable;

use crate::clip::Summation;
use crate::combine;
use crate::layout::{CHUNK, KEEP, Outcome, Partial, Setting, Sum};
use crate::plan::BLOCK;
use crate::real::largest_unscaled;
use crate::segments::{Limit, Owner, Segments, UnitView};

use super::block::Block;
use super::lanes::LANES;
use super::recycled::recycled;
use super::reduce::Scratch;
use super::sources::Source;
use super::stages::counted;
use super::threads;
use super::unit_outcomes::UnitDecider;
use super::unit_sums::Units;

/// Rows of a block: as many as have their partials added up for a tensor's sum at once.
const ROWS: usize = BLOCK as usize;
/// Elements that are measured before they are changed, at most.
const AT_ONCE: u64 = 1 << 15;

/// Rows over tensors that lie row after row, or the units of one tensor that do.
#[derive(Debug)]
pub(super) struct Rows {
    limit: usize,
    /// Of the tensors, the partials those of a block.
    sources: Vec<Source>,
    views: Vec<UnitView>,
    /// Tensors of the set.
    tensors: usize,
}

impl Rows {
    /// Takes those with several blocks a thread out of `sources`. Others need what all threads have measured, or are too few.
    pub(super) fn taken_from(sources: &mut Vec<Source>, parts: &Segments) -> Vec<Rows> {
        let several = 2 * ROWS * threads::count();
        let mut taken = Vec::new();
        for (limit, own) in parts.limits.iter().enumerate() {
            let units = (own.first, u64::from(own.segments));
            let belongs =
                |s: &Source| units_of(s, parts).is_some_and(|(first, view)| (first, view.units) == units);
            let in_order = |s: &Source| units_of(s, parts).is_some_and(|(_, view)| lies_in_order(&view));
            let members = || sources.iter().filter(|s| belongs(s));
            if (own.segments as usize) < several || members().next().is_none() || !members().all(in_order) {
                continue;
            }
            let mut members = sources.extract_if(.., |s| belongs(s)).collect::<Vec<_>>();
            let views = members.iter().filter_map(|s| units_of(s, parts)).map(|(_, view)| view).collect();
            members.iter_mut().zip(0..).for_each(|(s, i)| s.partials = i * ROWS..(i + 1) * ROWS);
            taken.push(Rows { limit, sources: members, views, tensors: parts.owners.len() });
        }
        taken
    }

    pub(super) fn are_of(&self, limit: &Limit, parts: &Segments) -> bool {
        parts.limits[self.limit].first == limit.first && limit.segments > 0
    }

    pub(super) fn has(&self, tensor: usize) -> bool {
        self.sources.iter().any(|s| s.number == tensor)
    }
}

/// The first segment of a tensor that is cut into units, and how.
fn units_of(source: &Source, parts: &Segments) -> Option<(u32, UnitView)> {
    match parts.owner_of(source.number) {
        Owner::Units { first, view } => Some((first, view)),
        Owner::One(_) => None,
    }
}

/// Whether unit follows unit, a chunk each at most.
fn lies_in_order(view: &UnitView) -> bool {
    let one_axis = view.kept.high.size == 1 && view.kept.low.stride == view.len;
    view.contiguous() && one_axis && (1..=u64::from(CHUNK)).contains(&view.len)
}

/// A tensor's part of a block, and what it adds up to.
#[derive(Debug)]
pub(super) struct Piece<'a> {
    /// Block by block, tensor by tensor.
    number: usize,
    elements: Block<'a>,
    sum: Sum,
}

/// What all blocks have in common.
struct Job<'a> {
    rows: &'a Rows,
    decider: UnitDecider<'a>,
    summation: Summation,
    /// The largest magnitude that counts as finite.
    largest: u32,
    /// Rows that count as each of [`counted`].
    counts: [AtomicU32; 5],
}

impl Rows {
    /// Clips them, given all tensors of the set, and says how many rows count as each of [`counted`]. The sums of tensors go where
    /// they belong.
    pub(super) fn clip(
        &self,
        blocks: &mut [Block<'_>],
        settings: &[Setting],
        (parts, summation): (&Segments, Summation),
        room: &mut Vec<Piece<'static>>,
        tensor_sums: &mut [Sum],
    ) -> [u32; 5] {
        let width = self.sources.len();
        let mut pieces = recycled(std::mem::take(room));
        for (number, block) in blocks.iter_mut().enumerate() {
            let Some(own) = self.sources.iter().position(|s| s.number == number) else { continue };
            let mut numbers = (own..).step_by(width);
            block.again().each(ROWS * self.views[own].len as usize, |elements| {
                let number = numbers.next().unwrap_or_default();
                pieces.push(Piece { number, elements, sum: combine::NOTHING });
            });
        }
        pieces.sort_unstable_by_key(|piece| piece.number);
        let setting = &settings[self.limit];
        let decider = UnitDecider::new(setting, summation);
        let largest = largest_unscaled(setting.unscale);
        let job = Job { rows: self, decider, summation, largest, counts: Default::default() };
        job.share(&mut pieces);
        for (own, source) in self.sources.iter().enumerate() {
            let sums = pieces.iter().skip(own).step_by(width).map(|piece| piece.sum);
            let place = parts.order.iter().position(|&tensor| tensor as usize == source.number);
            if let Some(to) = place.and_then(|place| tensor_sums.get_mut(place)) {
                *to = combine::combine(sums, summation);
            }
        }
        *room = recycled(pieces);
        job.counts.map(AtomicU32::into_inner)
    }
}

thread_local! {
    /// Partials and outcomes of a block, kept: memory as new as it is large comes page by page.
    static RECORDS: Cell<(Vec<Partial>, Vec<Outcome>)> = const { Cell::new((Vec::new(), Vec::new())) };
}

impl Job<'_> {
    /// All blocks, by halves.
    fn share(&self, pieces: &mut [Piece<'_>]) {
        let width = self.rows.sources.len();
        match pieces.len() / width {
            0 => {}
            1 => self.block(pieces),
            blocks => {
                let (before, after) = pieces.split_at_mut(blocks / 2 * width);
                threads::join(|| self.share(before), || self.share(after));
            }
        }
    }

    fn block(&self, pieces: &mut [Piece<'_>]) {
        let Rows { sources, views, tensors, .. } = self.rows;
        let (mut partials, mut outcomes) = RECORDS.take();
        partials.resize(sources.len() * ROWS, Partial::zeroed());
        let rows = pieces[0].elements.len() / views[0].len as usize;
        let elements: u64 = views.iter().map(|view| view.len).sum();
        let at_once = (AT_ONCE / elements).next_multiple_of(LANES as u64).max(LANES as u64) as usize;
        let mut scratch = Scratch::new();
        scratch.largest = self.largest;
        for first in (0..rows).step_by(at_once) {
            let own = first..rows.min(first + at_once);
            self.measure(pieces, own.clone(), &mut scratch, &mut partials);
            let units = Units::of_rows((sources, ROWS), &partials, *tensors, self.summation);
            if self.decide(&units, own.clone(), &mut outcomes) {
                self.change(pieces, own, &outcomes);
            }
        }
        for ((piece, source), own) in pieces.iter_mut().zip(sources).zip(partials.chunks(ROWS)) {
            let item = |p| combine::item(p, source.number as u32, self.summation);
            piece.sum = combine::combine(own[..rows].iter().map(item), self.summation);
        }
        RECORDS.set((partials, outcomes));
    }

    fn measure(
        &self,
        pieces: &[Piece<'_>],
        own: Range<usize>,
        scratch: &mut Scratch,
        partials: &mut [Partial],
    ) {
        for ((piece, view), to) in pieces.iter().zip(&self.rows.views).zip(partials.chunks_mut(ROWS)) {
            let (len, count) = (view.len as usize, own.len() as u64);
            let values = piece.elements.values().range(own.start * len, own.len() * len);
            values.reduce_units(view, 0, (0, count), self.summation, scratch, &mut to[own.clone()]);
        }
    }

    /// Whether anything is changed.
    fn decide(&self, units: &Units<'_>, own: Range<usize>, outcomes: &mut Vec<Outcome>) -> bool {
        outcomes.clear();
        outcomes.extend(own.map(|row| self.decider.decide(units, row)));
        let mut counts = [0; 5];
        for outcome in &*outcomes {
            counts.iter_mut().zip(counted(outcome, false)).for_each(|(count, one)| *count += u32::from(one));
        }
        self.counts.iter().zip(counts).for_each(|(all, own)| {
            all.fetch_add(own, Ordering::Relaxed);
        });
        outcomes.iter().any(|outcome| outcome.action != KEEP)
    }

    fn change(&self, pieces: &mut [Piece<'_>], own: Range<usize>, outcomes: &[Outcome]) {
        for (piece, view) in pieces.iter_mut().zip(&self.rows.views) {
            let len = view.len as usize;
            piece.elements.part(own.start * len, own.len() * len).apply_units(0, view, outcomes);
        }
    }
}
