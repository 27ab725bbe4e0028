//! outcomes -> gradients, over all tensors.

use crate::layout::{CHUNK, KEEP, Outcome};
use crate::segments::{Owner, UnitView};

use super::block::{Block, with_elements};
use super::{apply, double, threads};

/// What is written to, and how.
#[derive(Debug)]
pub(super) enum Change<'a> {
    Whole(Block<'a>, &'a Outcome),
    Units(Block<'a>, u64, UnitView, &'a [Outcome]),
}

impl Change<'_> {
    fn make(&mut self) {
        match self {
            Change::Whole(block, outcome) => block.apply(outcome),
            Change::Units(block, first, view, outcomes) => block.apply_units(*first, view, outcomes),
        }
    }
}

impl Block<'_> {
    fn apply(&mut self, outcome: &Outcome) {
        with_elements!(Block, self, e => apply::apply(e, outcome), e => double::apply_single(e, outcome));
    }

    /// As [`Block::apply`], with the outcome of each element's unit; the first of them is element
    /// `first` of its tensor.
    pub(super) fn apply_units(&mut self, first: u64, view: &UnitView, outcomes: &[Outcome]) {
        with_elements!(
            Block,
            self,
            e => apply::apply_units(e, first, view, outcomes),
            e => double::apply_single_units(e, first, view, outcomes)
        );
    }
}

/// Whether an outcome changes anything of a tensor.
pub(super) fn changes(owner: Owner, outcomes: &[Outcome]) -> bool {
    outcomes_of(owner, outcomes).iter().any(|o| o.action != KEEP)
}

/// The outcomes of a tensor's segments.
pub(super) fn outcomes_of(owner: Owner, outcomes: &[Outcome]) -> &[Outcome] {
    let first = owner.first() as usize;
    match owner {
        Owner::One(_) => &outcomes[first..=first],
        Owner::Units { view, .. } => &outcomes[first..first + view.units as usize],
    }
}

/// Elements with the segments that they belong to, and the place of the first of them in its tensor: these are changed where an
/// outcome says so. `work` is room for what has to be done.
pub(super) fn apply<'a>(
    pieces: impl IntoIterator<Item = (Block<'a>, Owner, u64)>,
    outcomes: &'a [Outcome],
    work: &mut Vec<Change<'a>>,
) {
    let mut elements = 0;
    for (block, owner, mut at) in pieces {
        if !changes(owner, outcomes) {
            continue;
        }
        elements += block.len() as u64;
        let own = outcomes_of(owner, outcomes);
        block.each(CHUNK as usize, |block| {
            work.push(match owner {
                Owner::One(_) => Change::Whole(block, &own[0]),
                Owner::Units { view, .. } => Change::Units(block, at, view, own),
            });
            at += u64::from(CHUNK);
        });
    }
    threads::share(work, elements, &|_, own| own.iter_mut().for_each(Change::make));
    work.clear();
}
