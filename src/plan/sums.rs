//! Which partials make a tensor's sum, which sums a segment's, and which segments are decided alike.

use std::collections::BTreeMap;

use bytemuck::Zeroable;

use crate::layout::{NONE, Run, SegmentRow};
use crate::segments::{Owner, Segments};

use super::limits::BLOCK;
use super::placed::Placed;

/// Partials to tensors, in the order of their sums; parameters follow.
pub(super) fn of_tensors(placed: &[Placed<'_>], parts: &Segments) -> Vec<Run> {
    let tensors = parts.owners.len() as u32;
    let parameters = parts.order.iter().map(|tensor| tensor + tensors).filter(|_| parts.parameters);
    let all = parts.order.iter().copied().chain(parameters);
    all.zip(0..)
        .map(|(tensor, target)| {
            let Placed { first_partial, partials, .. } = placed[tensor as usize];
            let tensor = tensor % tensors.max(1);
            Run {
                first: first_partial,
                count: partials,
                target,
                stride: 1,
                lanes: 1,
                tensor,
                segment: NONE,
                ..Run::zeroed()
            }
        })
        .collect()
}

/// Partials of a whole tensor that are not worth blocks.
fn most_in_one(block: u32) -> u64 {
    3 * u64::from(block)
}

/// Whether partials are added up in blocks before tensors: a tensor of very many would keep one workgroup busy for long.
pub(super) fn needs_blocks(tensors: &[Run], cut: bool, block: u32) -> bool {
    cut || tensors.iter().any(|run| u64::from(run.count) > most_in_one(block))
}

/// The same runs in blocks, and the blocks to tensors. Where tensors are cut into units a block's sum has an exponent of its
/// own, as the CPU path's has; else that of the whole tensor, as if there were no blocks.
pub(super) fn in_blocks(tensors: &[Run], cut: bool, block: u32) -> (Vec<Run>, Vec<Run>) {
    let mut blocks: Vec<Run> = Vec::new();
    let block = if cut { BLOCK } else { block.max(1) };
    let whole = tensors
        .iter()
        .map(|run| {
            let first = blocks.len() as u32;
            let in_one = !cut && u64::from(run.count) <= most_in_one(block);
            let step = if in_one { run.count.max(1) } else { block };
            blocks.extend((0..run.count).step_by(step as usize).map(|done| {
                let count = (run.count - done).min(step);
                let (before, after) = if cut { (0, 0) } else { (done, run.count - done - count) };
                Run { first: run.first + done, count, before, after, ..*run }
            }));
            Run { first, count: blocks.len() as u32 - first, ..*run }
        })
        .collect();
    blocks.iter_mut().zip(0..).for_each(|(block, target)| block.target = target);
    (blocks, whole)
}

/// Partials to the segments of units, up to `side_by_side` of them in a run. Tensors that share their rows lie
/// one after the other, with the partials of a row at equal distances; which partials are whose comes second.
pub(super) fn of_units(placed: &[Placed<'_>], parts: &Segments, side_by_side: u32) -> (Vec<Run>, Vec<Run>) {
    let mut runs: Vec<Run> = Vec::new();
    let mut members: Vec<Run> = Vec::new();
    for (p, tensor) in placed.iter().zip(0..) {
        let Owner::Units { first: segment, view } = p.owner else { continue };
        let (lanes, count) = (view.units as u32, view.chunks() as u32);
        let first = p.first_partial;
        let run = Run { first, count, target: NONE, stride: lanes, lanes, tensor, segment, ..Run::zeroed() };
        match runs.last_mut() {
            Some(last) if last.segment == segment && last.lanes == lanes && lanes > 0 => {
                last.count += count;
                last.tensor = NONE;
            }
            _ => runs.push(run),
        }
        members.push(Run { count: 0, stride: 0, lanes: 0, segment: NONE, ..run });
    }
    if runs.iter().all(|run| run.tensor != NONE) {
        members.clear();
    }
    let tensors = parts.owners.len() as u32;
    let named = |tensor: u32| if tensor == NONE { NONE } else { tensor % tensors.max(1) };
    members.iter_mut().for_each(|member| member.tensor = named(member.tensor));
    let runs = runs
        .iter()
        .flat_map(|run| {
            // Few units of many chunks take a workgroup each, many units an invocation each.
            let step = if run.count > side_by_side { 1 } else { side_by_side };
            (0..run.lanes).step_by(step as usize).map(move |done| Run {
                first: run.first + done,
                segment: run.segment + done,
                lanes: (run.lanes - done).min(step),
                tensor: named(run.tensor),
                ..*run
            })
        })
        .collect();
    (runs, members)
}

/// Sums of tensors to segments that hold them whole, and to that of the whole set. Where a segment is one
/// tensor, no run is needed: the one of its partials, if there is a single one, writes the segment too.
pub(super) fn of_segments(
    parts: &Segments,
    tensors: usize,
    of_blocks: Option<&[Run]>,
    of_partials: &mut [Run],
) -> Vec<Run> {
    let mut runs = Vec::new();
    // The run of partials that is a whole tensor.
    let whole = |place: u32| match of_blocks.and_then(|runs| runs.get(place as usize)) {
        None => Some(place as usize),
        Some(run) => (run.count == 1).then_some(run.first as usize),
    };
    let mut add = |first: u32, count: u32, segment: u32| match whole(first).filter(|_| count == 1) {
        Some(run) => of_partials[run].segment = segment,
        None => runs.push(sum_of_sums(first, count, segment)),
    };
    let mut members: BTreeMap<u32, (u32, u32)> = match parts.cut() {
        true => BTreeMap::new(),
        // The segment of the whole set has a sum also where there is no tensor.
        false => (0..parts.count).map(|segment| (segment, (0, 0))).collect(),
    };
    for (place, &tensor) in (0..).zip(&parts.order) {
        if let Owner::One(segment) = parts.owners[tensor as usize] {
            let (first, count) = members.entry(segment).or_default();
            *first = if *count == 0 { place } else { *first };
            *count += 1;
        }
    }
    for (segment, (first, count)) in members {
        add(first, count, segment);
        if parts.parameters {
            add(first + tensors as u32, count, segment + parts.decided());
        }
    }
    if parts.total {
        // A tensor is written as one segment besides at most.
        runs.push(sum_of_sums(0, parts.limited, parts.count));
    }
    runs
}

fn sum_of_sums(first: u32, count: u32, target: u32) -> Run {
    Run { first, count, target, stride: 1, lanes: 1, tensor: NONE, segment: NONE, ..Run::zeroed() }
}

/// Segments in rows of at most a workgroup.
pub(super) fn decided(parts: &Segments, workgroup: u32) -> Vec<SegmentRow> {
    let mut rows = Vec::new();
    let mut add = |first: u32, segments: u32, limit: u32, step: u32| {
        for done in (0..segments).step_by(workgroup as usize) {
            let first = first + done;
            let parameters =
                if parts.parameters && first < parts.count { first + parts.decided() } else { NONE };
            let limit = limit + done * step;
            rows.push(SegmentRow { first, count: (segments - done).min(workgroup), limit, step, parameters });
        }
    };
    if parts.limits.iter().all(|l| l.segments == 1) {
        add(0, parts.count, 0, 1);
    } else {
        parts.limits.iter().zip(0..).for_each(|(l, limit)| add(l.first, l.segments, limit, 0));
    }
    if parts.total {
        add(parts.count, 1, parts.limits.len() as u32, 0);
    }
    rows
}
