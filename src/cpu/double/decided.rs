//! The outcomes of all segments, and what they do to tensors.

use crate::clip::Clip;
use crate::layout::Tally;
use crate::segments::{Owner, Segments};
use crate::tensor::DType;

use super::super::block::{Block, with_elements};
use super::super::threads;
use super::apply;
use super::decide::{self, Change, Outcome};
use super::measure::Measured;
use super::rules::{Rules, Setting};
use super::sum::Sum;

/// Segments above this many are decided by all threads.
const MANY: usize = 4096;
/// Elements that one thread changes at a time.
const PIECE: usize = 1 << 15;

/// What is done to every segment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Decided {
    pub(super) rules: Rules,
    /// One a segment.
    pub(super) outcomes: Vec<Outcome>,
    pub(super) total: Option<Outcome>,
    /// Whether the norm of the whole set was above the bound, and so the step left out.
    pub(super) above: bool,
}

impl Decided {
    /// What a clip makes of what was measured.
    pub(super) fn new(
        measured: &Measured,
        parts: &Segments,
        (clip, thresholds): (&Clip, &[f64]),
        rules: Rules,
    ) -> Decided {
        let whole = (parts.total || clip.skip.is_some()).then(|| {
            let mut sum = Sum::nothing(measured.norm);
            for limit in parts.limits.iter().filter(|l| !l.excluded) {
                let own = limit.first as usize..(limit.first + limit.segments) as usize;
                measured.segments[own].iter().for_each(|s| sum.merge(&s.carried(), measured.norm));
            }
            sum
        });
        let mut total = Setting::of_total(parts, clip)
            .zip(whole.as_ref())
            .map(|(setting, sum)| decide::decide(sum, &setting, sum, &rules));
        let above =
            clip.skip.zip(whole).is_some_and(|(skip, sum)| decide::is_above(&sum, skip.above, &rules));
        let mut outcomes = Vec::with_capacity(parts.count as usize);
        for (limit, &threshold) in parts.limits.iter().zip(thresholds) {
            let setting = Setting::of(limit, threshold, clip);
            let one = |segment: usize| {
                let sum = &measured.segments[segment];
                let mut out =
                    decide::decide(sum, &setting, measured.parameters.get(segment).unwrap_or(sum), &rules);
                if let Some(total) = total.as_ref().filter(|_| !setting.free && clip.limits_total()) {
                    decide::limit_by_total(&mut out, total, &rules);
                }
                if above {
                    decide::leave(&mut out, &rules);
                }
                out
            };
            let own = limit.first as usize..(limit.first + limit.segments) as usize;
            if own.len() > MANY {
                let first = own.start;
                outcomes.extend(threads::map(one(first), own.len(), MANY / 4, |i| one(first + i)));
            } else {
                outcomes.extend(own.map(one));
            }
        }
        if let Some(total) = total.as_mut().filter(|_| above) {
            decide::leave(total, &rules);
        }
        Decided { rules, outcomes, total, above }
    }

    /// Whether a tensor is written to.
    pub(crate) fn changes(&self, owner: Owner) -> bool {
        self.own(owner).iter().any(|o| o.change != Change::Keep)
    }

    fn own(&self, owner: Owner) -> &[Outcome] {
        let first = owner.first() as usize;
        match owner {
            Owner::One(_) => &self.outcomes[first..=first],
            Owner::Units { view, .. } => &self.outcomes[first..first + view.units as usize],
        }
    }

    /// Counts a step, and what was done in it.
    pub(super) fn count(&self, tally: &mut Tally) {
        *tally = Tally {
            steps: tally.steps + 1,
            clipped: 0,
            skipped: 0,
            changed: 0,
            non_finite: 0,
            unscale: self.rules.unscale as f32,
            ..*tally
        };
        for out in &self.outcomes {
            tally.clipped += u32::from(out.clipped);
            tally.skipped += u32::from(out.skipped);
            tally.changed += u32::from(out.change != Change::Keep);
            tally.non_finite += u32::from(out.non_finite > 0);
        }
        tally.clipped_steps += u32::from(tally.clipped > 0);
        tally.skipped_steps += u32::from(tally.skipped > 0);
    }

    /// Changes pieces of tensors: each with its tensor's segments and type, and its place in the tensor.
    pub(crate) fn apply(&self, pieces: Vec<(Owner, DType, u64, Block<'_>)>) {
        let mut work = Vec::with_capacity(pieces.len());
        let mut elements = 0;
        for (owner, dtype, mut first, block) in pieces {
            block.each(PIECE, |piece| {
                let len = with_elements!(&piece, e => e.len()) as u64;
                work.push((owner, dtype, first, piece));
                (first, elements) = (first + len, elements + len);
            });
        }
        let change = |_: usize, own: &mut [(Owner, DType, u64, Block<'_>)]| {
            own.iter_mut()
                .for_each(|(owner, dtype, first, piece)| self.apply_one(*owner, *dtype, *first, piece));
        };
        threads::share(&mut work, elements, &change);
    }

    fn apply_one(&self, owner: Owner, dtype: DType, first: u64, piece: &mut Block<'_>) {
        let (own, rules, most) = (self.own(owner), &self.rules, self.rules.most.of(dtype));
        with_elements!(piece, e => match owner {
            Owner::One(_) => apply::apply(e, &own[0], most, rules),
            Owner::Units { view, .. } => apply::apply_units(e, first, &view, own, most, rules),
        });
    }
}
