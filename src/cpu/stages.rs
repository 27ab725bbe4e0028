//! The stages between partials and gradients in their order, over all tensors.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

use bytemuck::Zeroable;

use crate::clip::Kind;
use crate::history::History;
use crate::layout::{CLIPPED, KEEP, NON_FINITE, Outcome, Partial, RULE_FREE, SKIPPED, Setting, Sum, Tally};
use crate::norm::unscaled_norm;
use crate::plan::BLOCK;
use crate::segments::{Owner, Segments};

use super::coefficient::{Decider, decide, limit_by_total};
use super::sources::Source;
use super::threads;
use super::threshold::{Step, Whole};
use crate::combine;

/// Segments above this many are decided by all threads.
const MANY: u32 = 4096;

/// One record a tensor, in the order of sums. `own` are the partials of each number, `blocks` room for sums between.
pub(super) fn tensor_sums(
    own: &[Range<usize>],
    partials: &[Partial],
    parts: &Segments,
    kind: Kind,
    blocks: &mut Vec<Sum>,
    sums: &mut Vec<Sum>,
) {
    let (tensors, cut) = (parts.owners.len() as u32, parts.cut());
    let of = |number: u32| {
        let own = &partials[own[number as usize].clone()];
        let tensor = number % tensors.max(1);
        let sum =
            |own: &[Partial]| combine::combine(own.iter().map(|p| combine::item(p, tensor, kind)), kind);
        if !cut || own.len() <= BLOCK as usize {
            return sum(own);
        }
        blocks.clear();
        blocks.resize(own.len().div_ceil(BLOCK as usize), combine::NOTHING);
        threads::each(blocks, 1, &|first, to| {
            let of_blocks = own.chunks(BLOCK as usize).skip(first);
            to.iter_mut().zip(of_blocks).for_each(|(to, block)| *to = sum(block));
        });
        combine::combine(blocks.iter().copied(), kind)
    };
    let parameters = parts.order.iter().map(|tensor| tensor + tensors).filter(|_| parts.parameters);
    sums.clear();
    sums.extend(parts.order.iter().copied().chain(parameters).map(of));
}

/// One record a segment, the whole set's, and those of parameters.
pub(super) fn segment_sums(
    sources: &[Source],
    partials: &[Partial],
    tensor_sums: &[Sum],
    parts: &Segments,
    kind: Kind,
    sums: &mut Vec<Sum>,
) {
    // What no tensor belongs to stays the sum of nothing; everything else is written.
    sums.resize(parts.summed() as usize, combine::NOTHING);
    unit_sums(sources, partials, parts, kind, sums);
    whole_sums(tensor_sums, parts, kind, sums);
    if parts.total {
        let limited = tensor_sums[..parts.limited as usize].iter().copied();
        sums[parts.count as usize] = combine::combine(limited, kind);
    }
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
fn unit_sums(sources: &[Source], partials: &[Partial], parts: &Segments, kind: Kind, sums: &mut [Sum]) {
    let tensors = parts.owners.len();
    let mut at = 0;
    while at < sources.len() {
        let Owner::Units { first, view } = parts.owner_of(sources[at].number) else {
            at += 1;
            continue;
        };
        let shares = |s: &&Source| matches!(parts.owner_of(s.number), Owner::Units { first: f, view: v } if (f, v.units) == (first, view.units));
        let group = if view.units == 0 { 1 } else { sources[at..].iter().take_while(shares).count() };
        let (own, units) = (&sources[at..at + group], view.units as usize);
        let item = |s: &Source, p: &Partial| combine::item(p, (s.number % tensors) as u32, kind);
        let whole = own.iter().all(|s| s.partials.len() == units);
        let sum_of = |unit: usize| {
            // A chunk each of every tensor, as most are, or several.
            if let ([s], true) = (own, whole) {
                return item(s, &partials[s.partials.start + unit]);
            }
            if whole {
                let items = own.iter().map(|s| item(s, &partials[s.partials.start + unit]));
                return combine::combine(items, kind);
            }
            let items = own.iter().flat_map(|s| {
                let chunks = partials[s.partials.clone()].iter().skip(unit).step_by(units);
                chunks.map(move |p| item(s, p))
            });
            combine::combine(items, kind)
        };
        threads::each(&mut sums[first as usize..first as usize + units], 1024, &|first, to| {
            (first..).zip(to).for_each(|(unit, to)| *to = sum_of(unit));
        });
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
    outcomes: &mut Vec<Outcome>,
) {
    let whole = whole_of(parts, settings, sums, kind);
    // Each is written, so that nothing has to be cleared.
    outcomes.truncate(parts.count as usize);
    outcomes.resize(parts.count as usize, Outcome::zeroed());
    for (limit, own) in parts.limits.iter().enumerate() {
        let mut setting = settings[limit];
        let state = history.states.get_mut(limit);
        if let Some(state) = state.as_ref().filter(|_| setting.rule != RULE_FREE) {
            (setting.threshold, setting.lift) = (state.threshold, 0);
            setting.total &= 1 - state.alone;
        }
        let decider = Decider::new(&setting, kind);
        let decided = |segment: u32| {
            let sum = &sums[segment as usize];
            let parameters = if parts.parameters { &sums[(segment + parts.decided()) as usize] } else { sum };
            let mut out = decider.decide(sum, parameters);
            // Whether its own norm was over its threshold.
            let over = sum.non_finite == 0 && out.flags & CLIPPED != 0;
            if let (Some(whole), 1) = (&whole, setting.total) {
                limit_by_total(&mut out, whole, &settings[settings.len() - 1]);
            }
            (out, over)
        };
        let segments = own.first as usize..(own.first + own.segments) as usize;
        let counts = [const { AtomicU32::new(0) }; 5];
        let decide_all = |first: usize, to: &mut [Outcome]| {
            let mut own_counts = [0; 5];
            for (segment, to) in (own.first + first as u32..).zip(to) {
                let over;
                (*to, over) = decided(segment);
                let counted = counted(to, over);
                own_counts.iter_mut().zip(counted).for_each(|(count, counts)| *count += u32::from(counts));
            }
            counts.iter().zip(own_counts).for_each(|(all, own)| {
                all.fetch_add(own, Ordering::Relaxed);
            });
        };
        if own.segments > MANY {
            threads::each(&mut outcomes[segments.clone()], MANY as usize / 4, &decide_all);
        } else {
            decide_all(0, &mut outcomes[segments.clone()]);
        }
        let tally = &mut history.tally;
        let mut over = 0;
        let totals =
            [&mut tally.clipped, &mut tally.skipped, &mut tally.changed, &mut tally.non_finite, &mut over];
        totals.into_iter().zip(counts).for_each(|(total, own)| *total += own.into_inner());
        if let Some(state) = state {
            let counted = sums[segments].iter().filter(|sum| sum.non_finite == 0).count() as u32;
            (state.counted, state.over) = (counted, over);
        }
    }
    let Tally { clipped, skipped, .. } = history.tally;
    history.tally.clipped_steps += u32::from(clipped > 0);
    history.tally.skipped_steps += u32::from(skipped > 0);
    outcomes.extend(whole);
}

/// Whether a segment counts as clipped, skipped, changed, as one with what is not finite, and as over its threshold.
fn counted(out: &Outcome, over: bool) -> [bool; 5] {
    let has = |flag: u32| out.flags & flag != 0;
    [has(CLIPPED), has(SKIPPED), out.action != KEEP, has(NON_FINITE), over]
}
