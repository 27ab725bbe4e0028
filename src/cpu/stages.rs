//! The stages between partials and gradients in their order, over all tensors.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

use bytemuck::Zeroable;

use crate::clip::{Clip, Summation};
use crate::history::History;
use crate::layout::{
    CLIPPED, KEEP, LET_THROUGH, NON_FINITE, Outcome, POLICY_NAN, POLICY_SKIP, Partial, RULE_FREE, SKIPPED,
    Setting, Sum, Tally,
};
use crate::norm::unscaled_norm;
use crate::plan::BLOCK;
use crate::segments::{Limit, Owner, Segments};

use super::coefficient::{Decider, decide, leave, limit_by_total};
use super::skip;
use super::threads;
use super::threshold::{Step, Whole};
use super::unit_outcomes::UnitDecider;
use super::unit_sums::Units;
use crate::combine;

/// Segments above this many are decided by all threads.
const MANY: usize = 4096;

/// One record a tensor, in the order of sums. `own` are the partials of each number, `blocks` room for sums between.
pub(super) fn tensor_sums(
    own: &[Range<usize>],
    partials: &[Partial],
    parts: &Segments,
    summation: Summation,
    blocks: &mut Vec<Sum>,
    sums: &mut Vec<Sum>,
) {
    let (tensors, cut) = (parts.owners.len() as u32, parts.cut());
    let of = |number: u32| {
        let own = &partials[own[number as usize].clone()];
        let tensor = number % tensors.max(1);
        let sum = |own: &[Partial]| {
            combine::combine(own.iter().map(|p| combine::item(p, tensor, summation)), summation)
        };
        if !cut || own.len() <= BLOCK as usize {
            return sum(own);
        }
        blocks.clear();
        blocks.resize(own.len().div_ceil(BLOCK as usize), combine::NOTHING);
        threads::each(blocks, 1, &|first, to| {
            let of_blocks = own.chunks(BLOCK as usize).skip(first);
            to.iter_mut().zip(of_blocks).for_each(|(to, block)| *to = sum(block));
        });
        combine::combine(blocks.iter().copied(), summation)
    };
    let parameters = parts.order.iter().map(|tensor| tensor + tensors).filter(|_| parts.parameters);
    sums.clear();
    sums.extend(parts.order.iter().copied().chain(parameters).map(of));
}

/// One record a segment, the whole set's, and those of parameters. Units that are `direct` have none.
pub(super) fn segment_sums<'a>(
    units: impl Iterator<Item = Units<'a>>,
    direct: bool,
    tensor_sums: &[Sum],
    parts: &Segments,
    summation: Summation,
    sums: &mut Vec<Sum>,
) {
    let whole = |owner: &Owner| if let Owner::One(segment) = owner { Some(segment + 1) } else { None };
    let len = if direct { parts.owners.iter().filter_map(whole).max().unwrap_or(0) } else { parts.summed() };
    // What no tensor belongs to stays the sum of nothing; everything else is written.
    sums.resize(len as usize, combine::NOTHING);
    for units in units.filter(|_| !direct) {
        let own = &mut sums[units.first as usize..][..units.count];
        threads::each(own, 1024, &|first, to| {
            (first..).zip(to).for_each(|(unit, to)| *to = units.sum(unit));
        });
    }
    combine::whole_segments(tensor_sums, parts, summation, sums);
}

/// Whether the step is left out, where the clip has a rule for that.
pub(super) fn judge(
    history: &mut History,
    parts: &Segments,
    settings: &mut [Setting],
    sums: &[Sum],
    summation: Summation,
) {
    let place = if parts.total { parts.count as usize } else { 0 };
    let setting = if parts.total { settings.last() } else { settings.first() };
    let (Some(sum), Some(setting)) = (sums.get(place), setting) else { return };
    let whole = skip::Whole {
        norm: unscaled_norm(sum, summation, setting.unscale),
        non_finite: sum.non_finite > 0,
        policy: setting.policy,
    };
    let History { skipping, inputs, progress, watched, .. } = history;
    skip::judge(skipping, inputs, whole, progress, watched);
    let lets_through = progress.reasons & LET_THROUGH != 0;
    let skips = |s: &&mut Setting| lets_through && s.policy == POLICY_SKIP && s.rule != RULE_FREE;
    settings.iter_mut().filter(skips).for_each(|setting| setting.policy = POLICY_NAN);
}

/// The thresholds of limits that adapt, and the beginning of a step.
pub(super) fn thresholds(
    history: &mut History,
    parts: &Segments,
    settings: &[Setting],
    sums: &[Sum],
    summation: Summation,
) {
    let History { adaptation, tally, states, norms, progress, .. } = history;
    *tally = Tally { steps: tally.steps + 1, clipped: 0, skipped: 0, changed: 0, non_finite: 0, ..*tally };
    tally.unscale = settings.first().map_or(tally.unscale, |s| s.unscale);
    let whole = whole_of(parts, settings, sums, summation);
    let whole = whole.map_or(Whole { coefficient: 1.0, finite: true }, |w| Whole {
        coefficient: w.coefficient,
        finite: w.flags & NON_FINITE == 0,
    });
    let window = adaptation.window as usize;
    for (limit, state) in states.iter_mut().enumerate() {
        let setting = &settings[limit];
        // A limit of rows over no tensors has no sum.
        let sum = sums.get(parts.limits[limit].first as usize).or(sums.last()).unwrap_or(&combine::NOTHING);
        let step = Step {
            adaptation,
            limit: limit as u32,
            initial: setting.threshold,
            norm: unscaled_norm(sum, summation, setting.unscale).to_f32().min(f32::MAX),
            measured: sum.non_finite == 0 && !skip::leaves_out(progress),
            whole,
            free: setting.rule == RULE_FREE,
        };
        step.run(state, &mut norms[limit * window..(limit + 1) * window]);
    }
}

fn whole_of(parts: &Segments, settings: &[Setting], sums: &[Sum], summation: Summation) -> Option<Outcome> {
    let sum = sums.get(parts.count as usize).filter(|_| parts.total);
    sum.zip(settings.last()).map(|(sum, setting)| decide(sum, setting, sum, summation))
}

/// Whether the units of a set are decided from their partials at once: their norms are asked for by nobody, and nothing else
/// but their own norms is compared with a limit.
pub(super) fn direct(parts: &Segments, clip: &Clip, summation: Summation) -> bool {
    let sums = matches!(summation, Summation::One | Summation::Two);
    sums && parts.cut() && !parts.total && !parts.parameters && clip.adapt.is_none()
}

/// One record a segment, and that of the whole set; none of segments that are decided `elsewhere`, the last ones at least. Of `direct` units it has what applies it needs, and no norm of those that are
/// surely kept.
pub(super) fn outcomes<'a>(
    history: &mut History,
    parts: &Segments,
    settings: &[Setting],
    (sums, direct): (&[Sum], impl Iterator<Item = Units<'a>>),
    summation: Summation,
    elsewhere: impl Fn(&Limit) -> bool,
    outcomes: &mut Vec<Outcome>,
) {
    let whole = whole_of(parts, settings, sums, summation);
    let leaves = skip::leaves_out(&history.progress);
    // In the order of their limits.
    let mut direct = direct.peekable();
    // Each is written, so that nothing has to be cleared.
    let end = |limit: &Limit| (limit.first + limit.segments) as usize;
    let len = parts.limits.iter().filter(|limit| !elsewhere(limit)).map(end).max().unwrap_or(0);
    outcomes.truncate(len);
    outcomes.resize(len, Outcome::zeroed());
    for (limit, own) in parts.limits.iter().enumerate().filter(|(_, own)| !elsewhere(own)) {
        let mut setting = settings[limit];
        let state = history.states.get_mut(limit);
        if let Some(state) = state.as_ref().filter(|_| setting.rule != RULE_FREE) {
            (setting.threshold, setting.lift, setting.raised) = (state.threshold, 0, state.raised);
            setting.total &= 1 - state.alone;
        }
        let decider = Decider::new(&setting, summation);
        let segments = own.first as usize..(own.first + own.segments) as usize;
        let to = &mut outcomes[segments.clone()];
        let counted = match direct.next_if(|units| (units.first, units.count) == (own.first, to.len())) {
            Some(units) => decide_direct(&setting, &units, to),
            None => decide_all(to, &|segment, out| {
                let segment = segments.start + segment;
                let sum = &sums[segment];
                let parameters =
                    if parts.parameters { &sums[segment + parts.decided() as usize] } else { sum };
                *out = decider.decide(sum, parameters);
                // Whether its own norm was over its threshold.
                let over = sum.non_finite == 0 && out.flags & CLIPPED != 0;
                if let (Some(whole), 1) = (&whole, setting.total) {
                    limit_by_total(out, whole, &settings[settings.len() - 1]);
                }
                if leaves {
                    leave(out);
                }
                over
            }),
        };
        count(&mut history.tally, counted);
        if let Some(state) = state {
            let [.., over] = counted;
            let measured = sums[segments].iter().filter(|sum| sum.non_finite == 0).count() as u32;
            (state.counted, state.over) = if leaves { (0, 0) } else { (measured, over) };
        }
    }
    outcomes.extend(whole.map(|mut whole| {
        if leaves {
            leave(&mut whole);
        }
        whole
    }));
}

/// Adds what segments count as to that of a step: clipped, skipped, changed, with what is not finite.
pub(super) fn count(tally: &mut Tally, counted: [u32; 5]) {
    let totals = [&mut tally.clipped, &mut tally.skipped, &mut tally.changed, &mut tally.non_finite];
    totals.into_iter().zip(counted).for_each(|(total, own)| *total += own);
}

/// What is known of a step once all segments of it are decided.
pub(super) fn count_step(tally: &mut Tally) {
    tally.clipped_steps += u32::from(tally.clipped > 0);
    tally.skipped_steps += u32::from(tally.skipped > 0);
}

/// Decides about units by their partials.
fn decide_direct(setting: &Setting, units: &Units<'_>, to: &mut [Outcome]) -> [u32; 5] {
    let decider = UnitDecider::new(setting, units.summation());
    decide_all(to, &|unit, out| {
        let outcome = decider.decide(units, unit);
        // Most were kept in the last step as well: what is not written has not to be brought to memory.
        if bytemuck::bytes_of(out) != bytemuck::bytes_of(&outcome) {
            *out = outcome;
        }
        false
    })
}

/// An outcome each, by all threads where there are many, and how many count as each of [`counted`]. `decide` tells whether a
/// segment's own norm is over its threshold.
fn decide_all(to: &mut [Outcome], decide: &(impl Fn(usize, &mut Outcome) -> bool + Sync)) -> [u32; 5] {
    let counts = [const { AtomicU32::new(0) }; 5];
    let run = |first: usize, to: &mut [Outcome]| {
        let mut own_counts = [0; 5];
        for (segment, to) in (first..).zip(to) {
            let over = decide(segment, to);
            let counted = counted(to, over);
            own_counts.iter_mut().zip(counted).for_each(|(count, counts)| *count += u32::from(counts));
        }
        counts.iter().zip(own_counts).for_each(|(all, own)| {
            all.fetch_add(own, Ordering::Relaxed);
        });
    };
    if to.len() > MANY {
        threads::each(to, MANY / 4, &run);
    } else {
        run(0, to);
    }
    counts.map(AtomicU32::into_inner)
}

/// Whether a segment counts as clipped, skipped, changed, as one with what is not finite, and as over its threshold.
pub(super) fn counted(out: &Outcome, over: bool) -> [bool; 5] {
    let has = |flag: u32| out.flags & flag != 0;
    [has(CLIPPED), has(SKIPPED), out.action != KEEP, has(NON_FINITE), over]
}
