//! From gradients in one piece to clipped ones: the stages one after the other, of either path.

use bytemuck::Zeroable;

use crate::clip::{Clip, LossScale};
use crate::history::History;
use crate::layout::Hyper;
use crate::report::Report;

use super::block::{Block, Values};
use super::recycled::recycled;
use super::room::Room;
use super::set::Set;
use super::workspace::Workspace;
use super::{advance, change, double};

/// Clips gradients of which none is measured as `f64`. The records stay in `workspace`.
pub(super) fn clip_in_single(
    blocks: &mut [Block<'_>],
    parameters: &[Values<'_>],
    set: &Set,
    (clip, thresholds): (&Clip, &[f64]),
    workspace: &mut Workspace,
    history: &mut History,
    room: &mut Room,
) {
    let mut values = recycled(std::mem::take(&mut room.values));
    values.extend(blocks.iter().map(Block::values));
    workspace.decide(&values, parameters, &set.parts, (clip, thresholds), history);
    room.values = recycled(values);
    apply_in_single(blocks, set, clip, workspace, history, room);
}

/// What follows the decision.
pub(super) fn apply_in_single(
    blocks: &mut [Block<'_>],
    set: &Set,
    clip: &Clip,
    workspace: &mut Workspace,
    history: &mut History,
    room: &mut Room,
) {
    let summation = clip.norm.into();
    workspace.clip_rows(blocks, (&set.parts, summation), history, &mut room.pieces);
    advance_without_step(clip, history);
    if history.tally.changed == 0 {
        return;
    }
    let mut work = recycled(std::mem::take(&mut room.work));
    let all = blocks.iter_mut().zip(&set.parts.owners).enumerate();
    let pieces = all.filter(|(tensor, _)| !workspace.clips(*tensor));
    let pieces = pieces.map(|(_, (block, &owner))| (block.again(), owner, 0));
    change::apply(pieces, &workspace.outcomes, &mut work);
    room.work = recycled(work);
}

pub(super) fn clip_in_double(
    blocks: &mut [Block<'_>],
    parameters: &[Values<'_>],
    set: &Set,
    (clip, thresholds): (&Clip, &[f64]),
    history: &mut History,
) -> Report {
    let Set { infos, parts, .. } = set;
    let values: Vec<Values<'_>> = blocks.iter().map(Block::values).collect();
    let (decided, report) = double::decide(&values, parameters, infos, parts, (clip, thresholds), history);
    drop(values);
    let all = blocks.iter_mut().map(Block::again).zip(&parts.owners).zip(infos);
    let changed = all.filter(|((_, owner), _)| decided.changes(**owner));
    decided.apply(changed.map(|((block, &owner), info)| (owner, info.dtype, 0, block)).collect());
    report
}

/// The next loss scale, where no optimiser's step is counted.
pub(super) fn advance_without_step(clip: &Clip, history: &mut History) {
    let hyper = LossScale::add_to(clip.loss_scale, Hyper::zeroed());
    advance::advance(&hyper, &history.tally, &mut history.progress);
}
