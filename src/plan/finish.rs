//! What one workgroup does by itself between reading gradients and reading them again.
//!
//! Dispatches that depend on each other follow one another in 3 to 5 microseconds on a GPU, whatever they do.
//! Where little is to be done, one workgroup with barriers between its stages is done before.

use bytemuck::Zeroable;

use crate::clip::{Adapt, Clip};
use crate::layout::{
    ChunkRow, NONE, Run, STAGE_ADVANCE, STAGE_DECIDE, STAGE_SEGMENTS, STAGE_TENSORS, SegmentRow,
};
use crate::segments::Segments;

use super::dispatch::Combine;
use super::limits::PlanLimits;
use super::pack::Packed;
use super::placed::Placed;
use super::sums;

/// Items that one workgroup adds up: a lane of 256 takes 16, about what one more dispatch costs.
pub const FINISH_ITEMS: u32 = 4096;
/// Segments that it decides: an invocation each, so fewer where a workgroup has fewer.
pub const FINISH_SEGMENTS: u32 = 256;
/// Limits whose norms it searches for a mean or a percentile, by all lanes. Several would be searched one after the
/// other, where a workgroup each is faster; and SwiftShader takes minutes to compile a loop around the search.
pub const FINISH_WINDOWS: usize = 1;
/// Storage buffers that it binds where thresholds are fixed: what the least device has.
const STORAGE: u32 = 8;
/// Uniform buffers besides those.
const UNIFORM: u32 = 3;
/// And for states and norms, where they adapt.
const ADAPTING_STORAGE: u32 = 2;
/// What a run that all lanes add up costs on top of its items, in items that one lane adds: five barriers.
const TOGETHER: u64 = 16;

/// The work of one workgroup; see [`Plan::finish`](super::Plan::finish).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finish {
    /// The `STAGE_` constants of what it can do; dispatches of their own come before it for the others.
    pub stages: u32,
    /// Runs of partials, runs of sums of tensors, members of runs of partials, and segments: a
    /// [`SegmentRow`] each, in the form of a run, since buffers are few.
    pub table: Vec<Run>,
    /// Runs of partials.
    pub runs: u32,
    /// How many of them, at their beginning, one invocation each adds up.
    pub serial: u32,
    /// Runs of sums of tensors.
    pub segment_runs: u32,
    /// How many of them, at their beginning, one invocation each adds up.
    pub segment_serial: u32,
    /// Members of runs of partials.
    pub members: u32,
    /// Segments that are decided.
    pub decided: u32,
    /// Whether it also reduces the set's only chunk, whose [`ChunkRow`] ends the table in the form of a run.
    pub reduces: bool,
}

impl Finish {
    pub(super) fn new(
        placed: &[Placed<'_>],
        parts: &Segments,
        clip: &Clip,
        (of_tensors, whole): (&[Run], bool),
        segments: &Combine,
        packed: &Packed,
        limits: &PlanLimits,
    ) -> Option<Finish> {
        let windows = clip.adapt.map_or(0, Adapt::window);
        let adapting = if windows > 0 { FINISH_WINDOWS } else { limits.workgroup_size as usize };
        let storage = STORAGE + if clip.adapt.is_some() { ADAPTING_STORAGE } else { 0 };
        let fits = limits.finish
            && limits.storage >= storage
            && limits.buffers >= storage + UNIFORM
            && parts.decided() <= FINISH_SEGMENTS.min(limits.workgroup_size)
            && (clip.adapt.is_none() || parts.limits.len() <= adapting);
        if !fits {
            return None;
        }
        let partials: u64 = placed.iter().map(|p| u64::from(p.partials)).sum();
        let few = |items: u64| items <= FINISH_ITEMS.into();
        let sums_few = few(of_tensors.len() as u64);
        // One run takes one workgroup anyway.
        let of_segments = sums_few || segments.runs.len() <= 1;
        // Blocks of tensors are added up by dispatches of their own.
        let of_partials = whole && sums_few && few(partials);
        let (mut runs, mut members) = (Vec::new(), Vec::new());
        if of_partials {
            let units;
            (units, members) = sums::of_units(placed, parts, 1);
            runs = [of_tensors, &units].concat();
        }
        let in_place = |run: &Run| Run { target: NONE, segment: run.target, ..*run };
        let mut sums: Vec<Run> =
            if of_segments { segments.runs.iter().map(in_place).collect() } else { Vec::new() };
        let serial = alone(&mut runs, limits.workgroup_size);
        let segment_serial = alone(&mut sums, limits.workgroup_size);
        let decided: Vec<Run> = sums::decided(parts, 1).iter().map(as_run).collect();
        let binds_slot = limits.storage > storage && limits.buffers > storage + UNIFORM;
        let reduces = of_partials && binds_slot && clip.adapt.is_none();
        let only = only_chunk(packed).filter(|_| reduces).map(chunk_as_run);
        let stage = |does: bool, stage: u32| if does { stage } else { 0 };
        Some(Finish {
            stages: stage(of_partials, STAGE_TENSORS)
                | stage(of_segments, STAGE_SEGMENTS)
                | STAGE_DECIDE
                | STAGE_ADVANCE,
            runs: runs.len() as u32,
            serial,
            segment_runs: sums.len() as u32,
            segment_serial,
            members: members.len() as u32,
            decided: decided.len() as u32,
            reduces: only.is_some(),
            table: [runs, sums, members, decided, only.into_iter().collect()].concat(),
        })
    }

    /// Whether it does a stage.
    pub fn does(&self, stage: u32) -> bool {
        self.stages & stage != 0
    }
}

fn as_run(row: &SegmentRow) -> Run {
    let SegmentRow { first, count, limit, step, parameters } = *row;
    Run {
        first,
        count,
        target: limit,
        stride: step,
        lanes: parameters,
        tensor: NONE,
        segment: NONE,
        ..Run::zeroed()
    }
}

/// The row of a set that has one chunk, reduced by itself.
fn only_chunk(packed: &Packed) -> Option<&ChunkRow> {
    let mut dispatches = packed.both.iter().chain(&packed.measured);
    match (dispatches.next(), dispatches.next(), &packed.rows[..]) {
        (Some(only), None, [row]) if only.windows.len() == 1 && packed.units.is_empty() => Some(row),
        _ => None,
    }
}

fn chunk_as_run(row: &ChunkRow) -> Run {
    let ChunkRow { start, slot_len, partial, segment } = *row;
    Run { first: start, count: slot_len, target: partial, segment, ..Run::zeroed() }
}

/// Sorts runs, those first that one invocation each adds up, and says how many these are: as many as make the
/// whole shortest, where the longest one of these is waited for.
fn alone(runs: &mut [Run], workgroup: u32) -> u32 {
    runs.sort_by_key(|run| run.count);
    let workgroup = u64::from(workgroup);
    let mut best = (u64::MAX, 0);
    let mut together = 0;
    for serial in (0..=runs.len()).rev() {
        let longest = runs[..serial].last().map_or(0, |run| u64::from(run.count));
        let cost = together + longest * (serial as u64).div_ceil(workgroup);
        best = best.min((cost, serial));
        if let Some(run) = runs[..serial].last() {
            together += TOGETHER + u64::from(run.count).div_ceil(workgroup);
        }
    }
    best.1 as u32
}
