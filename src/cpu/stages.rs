//! The stages in their order, over all tensors.

use std::ops::Range;

use rayon::prelude::*;

use crate::clip::Kind;
use crate::history::History;
use crate::layout::{
    CHUNK, CLIPPED, KEEP, NON_FINITE, Outcome, Partial, RULE_FREE, SKIPPED, Setting, Sum, Tally,
};
use crate::plan::{BLOCK, chunks, order_of_partials};
use crate::segments::{Owner, Segments, TensorInfo, UnitView};

use super::coefficient::{decide, limit_by_total, unscaled_norm};
use super::combine;
use super::grads::Block;
use super::threshold::{Step, Whole};
use super::{Contiguous, Values};
use crate::real::largest_unscaled;

/// Sets below this many elements are not worth waking other threads for.
pub(super) const SEQUENTIAL: u64 = 1 << 17;
/// Segments above this many are decided by all threads.
const MANY: u32 = 4096;

/// Items of work that together have about as many elements as a chunk: fewer are not worth a thread's
/// attention.
pub(super) fn at_once(items: usize, elements: u64) -> usize {
    (items as u64 * u64::from(CHUNK) / elements.max(1)).max(1) as usize
}

/// A tensor or its parameters, with its segments and its partials.
pub(super) struct Source<'a> {
    pub(super) values: Values<'a>,
    pub(super) owner: Owner,
    /// Its number among tensors and their parameters.
    number: usize,
    partials: Range<usize>,
    /// The largest magnitude that counts as finite, as `f32` bits.
    pub(super) largest: u32,
}

/// All tensors, then all parameters, in the order of their partials. Tensors are unscaled, parameters not.
pub(super) fn sources<'a>(
    tensors: &[Values<'a>],
    parameters: &[Values<'a>],
    infos: &[TensorInfo],
    parts: &Segments,
    unscale: f32,
) -> Vec<Source<'a>> {
    let [of_tensors, of_parameters] = [unscale, 1.0].map(largest_unscaled);
    let mut first = 0;
    order_of_partials(infos, tensors.len() + parameters.len())
        .into_iter()
        .map(|number| {
            let (values, owner, largest) = match number.checked_sub(tensors.len()) {
                None => (tensors[number], parts.owners[number], of_tensors),
                Some(i) => (parameters[i], parts.owners[i].shifted(parts.decided()), of_parameters),
            };
            let partials = first..first + chunks(values.len() as u64, owner) as usize;
            first = partials.end;
            Source { values, owner, number, partials, largest }
        })
        .collect()
}

pub(super) fn elements(sources: &[Source<'_>]) -> u64 {
    sources.iter().map(|s| s.values.len() as u64).sum()
}

/// One record a tensor, in the order of sums.
pub(super) fn tensor_sums(
    sources: &[Source<'_>],
    partials: &[Partial],
    parts: &Segments,
    kind: Kind,
) -> Vec<Sum> {
    let mut own: Vec<&[Partial]> = vec![&[]; sources.len()];
    sources.iter().for_each(|s| own[s.number] = &partials[s.partials.clone()]);
    let (tensors, cut) = (parts.owners.len() as u32, parts.cut());
    let of = |source: u32| {
        let own = own[source as usize];
        let tensor = source % tensors.max(1);
        let items =
            |own: &'_ [Partial]| -> Vec<Sum> { own.iter().map(|p| combine::item(p, tensor, kind)).collect() };
        if cut {
            let blocks: Vec<Sum> = own
                .par_chunks(BLOCK as usize)
                .map(|block| combine::combine(items(block).into_iter(), kind))
                .collect();
            return combine::combine(blocks.into_iter(), kind);
        }
        combine::combine(own.iter().map(|p| combine::item(p, tensor, kind)), kind)
    };
    let parameters = parts.order.iter().map(|tensor| tensor + tensors).filter(|_| parts.parameters);
    parts.order.iter().copied().chain(parameters).map(of).collect()
}

/// One record a segment, the whole set's, and those of parameters.
pub(super) fn segment_sums(
    sources: &[Source<'_>],
    partials: &[Partial],
    tensor_sums: &[Sum],
    parts: &Segments,
    kind: Kind,
) -> Vec<Sum> {
    let nothing = combine::combine(std::iter::empty(), kind);
    let mut sums = vec![nothing; parts.summed() as usize];
    unit_sums(sources, partials, parts, kind, &mut sums);
    whole_sums(tensor_sums, parts, kind, &mut sums);
    if parts.total {
        let limited = tensor_sums[..parts.limited as usize].iter().copied();
        sums[parts.count as usize] = combine::combine(limited, kind);
    }
    sums
}

/// Sums of segments that hold tensors whole, and of their parameters.
fn whole_sums(tensor_sums: &[Sum], parts: &Segments, kind: Kind, sums: &mut [Sum]) {
    let tensors = parts.owners.len();
    let mut first = 0;
    while first < tensors {
        let Owner::One(segment) = parts.owners[parts.order[first] as usize] else {
            first += 1;
            continue;
        };
        let members = parts.order[first..]
            .iter()
            .take_while(|&&tensor| parts.owners[tensor as usize] == Owner::One(segment))
            .count();
        let own = |from: usize| combine::combine(tensor_sums[from..from + members].iter().copied(), kind);
        sums[segment as usize] = own(first);
        if parts.parameters {
            sums[(segment + parts.decided()) as usize] = own(first + tensors);
        }
        first += members;
    }
}

/// Sums of units, each over the chunks of all tensors that share its segment.
fn unit_sums(sources: &[Source<'_>], partials: &[Partial], parts: &Segments, kind: Kind, sums: &mut [Sum]) {
    let tensors = parts.owners.len();
    let mut at = 0;
    while at < sources.len() {
        let Owner::Units { first, view } = sources[at].owner else {
            at += 1;
            continue;
        };
        let shares = |s: &&Source<'_>| matches!(s.owner, Owner::Units { first: f, view: v } if (f, v.units) == (first, view.units));
        let group = if view.units == 0 { 1 } else { sources[at..].iter().take_while(shares).count() };
        let (own, units) = (&sources[at..at + group], view.units as usize);
        sums[first as usize..first as usize + units].par_iter_mut().enumerate().with_min_len(1024).for_each(
            |(unit, sum)| {
                let items = own.iter().flat_map(|s| {
                    let tensor = (s.number % tensors) as u32;
                    let chunks = partials[s.partials.clone()].iter().skip(unit).step_by(units);
                    chunks.map(move |p| combine::item(p, tensor, kind))
                });
                *sum = combine::combine(items, kind);
            },
        );
        at += group;
    }
}

/// The thresholds of limits that adapt, and the beginning of a step.
pub(super) fn thresholds(
    history: &mut History,
    parts: &Segments,
    settings: &[Setting],
    sums: &[Sum],
    kind: Kind,
) {
    let History { adaptation, tally, states, norms, .. } = history;
    *tally = Tally { steps: tally.steps + 1, clipped: 0, skipped: 0, changed: 0, non_finite: 0, ..*tally };
    tally.unscale = settings.first().map_or(tally.unscale, |s| s.unscale);
    let whole = whole_of(parts, settings, sums, kind);
    let whole = whole.map_or(Whole { coefficient: 1.0, finite: true }, |w| Whole {
        coefficient: w.coefficient,
        finite: w.flags & NON_FINITE == 0,
    });
    let window = adaptation.window as usize;
    for (limit, state) in states.iter_mut().enumerate() {
        let setting = &settings[limit];
        let sum = &sums[(parts.limits[limit].first as usize).min(sums.len() - 1)];
        let step = Step {
            adaptation,
            initial: setting.threshold,
            norm: unscaled_norm(sum, kind, setting.unscale).to_f32().min(f32::MAX),
            measured: sum.non_finite == 0,
            whole,
            free: setting.rule == RULE_FREE,
        };
        step.run(state, &mut norms[limit * window..(limit + 1) * window]);
    }
}

fn whole_of(parts: &Segments, settings: &[Setting], sums: &[Sum], kind: Kind) -> Option<Outcome> {
    let sum = &sums[parts.count as usize..parts.decided() as usize];
    sum.first().zip(settings.last()).map(|(sum, setting)| decide(sum, setting, sum, kind))
}

/// One record a segment, and that of the whole set.
pub(super) fn outcomes(
    history: &mut History,
    parts: &Segments,
    settings: &[Setting],
    sums: &[Sum],
    kind: Kind,
) -> Vec<Outcome> {
    let whole = whole_of(parts, settings, sums, kind);
    let mut outcomes = Vec::with_capacity(parts.decided() as usize);
    for (limit, own) in parts.limits.iter().enumerate() {
        let mut setting = settings[limit];
        let state = history.states.get_mut(limit);
        if let Some(state) = state.as_ref().filter(|_| setting.rule != RULE_FREE) {
            (setting.threshold, setting.lift) = (state.threshold, 0);
            setting.total &= 1 - state.alone;
        }
        // The outcome, and whether the segment's own norm was over its threshold.
        let decided = |segment: u32| {
            let sum = &sums[segment as usize];
            let parameters = if parts.parameters { &sums[(segment + parts.decided()) as usize] } else { sum };
            let mut out = decide(sum, &setting, parameters, kind);
            let over = sum.non_finite == 0 && out.flags & CLIPPED != 0;
            if let (Some(whole), 1) = (&whole, setting.total) {
                limit_by_total(&mut out, whole, &settings[settings.len() - 1]);
            }
            (out, over)
        };
        let (mut counted, mut over) = (0, 0);
        let mut take = |segment: u32, (out, own_over): (Outcome, bool)| {
            counted += u32::from(sums[segment as usize].non_finite == 0);
            over += u32::from(own_over);
            count(&mut history.tally, &out);
            outcomes.push(out);
        };
        let segments = own.first..own.first + own.segments;
        if own.segments > MANY {
            let all: Vec<_> =
                segments.clone().into_par_iter().with_min_len(MANY as usize / 4).map(decided).collect();
            segments.zip(all).for_each(|(segment, own)| take(segment, own));
        } else {
            segments.for_each(|segment| take(segment, decided(segment)));
        }
        if let Some(state) = state {
            (state.counted, state.over) = (counted, over);
        }
    }
    let Tally { clipped, skipped, .. } = history.tally;
    history.tally.clipped_steps += u32::from(clipped > 0);
    history.tally.skipped_steps += u32::from(skipped > 0);
    outcomes.extend(whole);
    outcomes
}

fn count(tally: &mut Tally, out: &Outcome) {
    tally.clipped += u32::from(out.flags & CLIPPED != 0);
    tally.skipped += u32::from(out.flags & SKIPPED != 0);
    tally.changed += u32::from(out.action != KEEP);
    tally.non_finite += u32::from(out.flags & NON_FINITE != 0);
}

/// What is written to, and how.
enum Change<'a> {
    Whole(Block<'a>, &'a Outcome),
    Units(Block<'a>, u64, UnitView, &'a [Outcome]),
}

/// The gradients, where an outcome changes them.
pub(super) fn apply(tensors: &mut [Contiguous<'_, '_>], parts: &Segments, outcomes: &[Outcome]) {
    let elements: u64 = tensors.iter().map(|t| t.values().len() as u64).sum();
    let mut work: Vec<Change<'_>> = Vec::new();
    for (tensor, &owner) in tensors.iter_mut().zip(&parts.owners) {
        let first = owner.first() as usize;
        let own = match owner {
            Owner::One(_) => &outcomes[first..=first],
            Owner::Units { view, .. } => &outcomes[first..first + view.units as usize],
        };
        if own.iter().all(|o| o.action == KEEP) {
            continue;
        }
        let mut at = 0;
        tensor.each_block(CHUNK as usize, |block| {
            work.push(match owner {
                Owner::One(_) => Change::Whole(block, &own[0]),
                Owner::Units { view, .. } => Change::Units(block, at, view, own),
            });
            at += u64::from(CHUNK);
        });
    }
    let change = |change: Change<'_>| match change {
        Change::Whole(block, outcome) => block.apply(outcome),
        Change::Units(block, first, view, outcomes) => block.apply_units(first, &view, outcomes),
    };
    if elements > SEQUENTIAL {
        let at_once = at_once(work.len(), elements);
        work.into_par_iter().with_min_len(at_once).for_each(change);
    } else {
        work.into_iter().for_each(change);
    }
}
