//! Cuts a set of tensors into chunks, windows and dispatches: pure data, without a device.
//!
//! A *window* is an aligned range of one buffer, no larger than a binding may be. A *slot* is the
//! place of a window in a dispatch. Every chunk lies in one window whole; windows of one dispatch
//! never overlap, since browsers refuse that for writable bindings.

mod check;
mod coalesce;
mod dispatch;
mod examples;
mod finish;
mod fused;
mod limits;
mod operands;
mod pack;
mod placed;
mod placement;
mod ratios;
mod row_wise;
mod sums;

use crate::clip::{Adapt, Clip, Summation};
use crate::error::{PlanError, PrepareError};
use crate::layout::{
    Adaptation, ChunkRow, Inputs, MapRow, Outcome, Partial, Progress, Run, STAGE_DECIDE, STAGE_SEGMENTS,
    STAGE_TENSORS, SeamRow, SegmentRow, Setting, Skipping, State, Sum, Tally, UnitRow,
};
use crate::segments::Segments;
use crate::tensor::TensorInfo;

pub use crate::tensor::Precision;

pub use coalesce::{AddedWindow, CoalescePlan, Entries};
pub(crate) use dispatch::grid;
pub use dispatch::{Combine, Dispatch, Window};
pub(crate) use examples::{Examples, ExamplesPlan};
pub use finish::{FINISH_ITEMS, FINISH_SEGMENTS, FINISH_WINDOWS, Finish};
pub use fused::FusedPlan;
pub use limits::PlanLimits;
pub(crate) use limits::{BLOCK, OTHER_BUFFERS, OTHER_STORAGE};
pub(crate) use operands::check_ranges;
pub use operands::{MOST_OPERANDS, Operands, Pattern, RowWise};
pub(crate) use placed::partials_in_order;
use placed::{Placed, without_excluded_parameters};
pub use placement::Placement;
pub use ratios::Ratios;

/// The whole plan. Partials are numbered tensor by tensor, those of excluded groups last, chunk by chunk,
/// and unit by unit within a chunk.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Dispatches over [`Plan::rows`] of the reduce and of the apply pass: tensors that belong to one
    /// segment whole.
    pub dispatches: Vec<Dispatch>,
    /// Dispatches over [`Plan::rows`] of the reduce pass alone: long units, and parameters.
    pub measured: Vec<Dispatch>,
    /// Chunks, in the order of these dispatches.
    pub rows: Vec<ChunkRow>,
    /// Dispatches over [`Plan::unit_rows`] of the reduce pass.
    pub units: Vec<Dispatch>,
    /// Short or scattered units, side by side.
    pub unit_rows: Vec<UnitRow>,
    /// Dispatches over [`Plan::map_rows`] of the apply pass: tensors that are cut into units.
    pub mapped: Vec<Dispatch>,
    /// Runs of elements of such tensors.
    pub map_rows: Vec<MapRow>,
    /// Words of 16-bit elements that no row owns whole.
    pub seams: Vec<SeamRow>,
    /// Number of partials.
    pub partials: u32,
    /// Where tensors are cut into many units, or one has very many partials, partials to sums of blocks, and to sums of
    /// segments.
    pub blocks: Option<Combine>,
    /// Partials to sums of tensors, and to sums of segments that are one tensor or one unit; or sums of blocks to
    /// sums of tensors.
    pub tensors: Combine,
    /// Sums of tensors to sums of segments of several tensors.
    pub segments: Combine,
    /// What one workgroup does in place of several dispatches, where there is little of it and
    /// [`PlanLimits::finish`] allows it. Fields above and below say what dispatches of their own do.
    pub finish: Option<Finish>,
    /// The segments whose outcomes are decided.
    pub segment_rows: Vec<SegmentRow>,
    /// Workgroups of the kernel that takes one row of these each.
    pub segment_grid: [u32; 2],
    /// Segment of each tensor, the first one where it is cut into units.
    pub segment_of: Vec<u32>,
    /// Place of each tensor's sum; parameters' sums follow.
    pub sum_of: Vec<u32>,
    tensors_summed: u32,
    block_sums: u32,
    /// Bytes of what thresholds, loss scale and the rule that leaves out steps remember.
    history_bytes: u64,
    pub(crate) parts: Segments,
}

impl Plan {
    /// Plans the clipping of `tensors`.
    ///
    /// ```
    /// use gradclip::{Clip, plan::{Placement, Plan, PlanLimits}};
    ///
    /// let limits = PlanLimits::new(&wgpu::Limits::default(), 256)?;
    /// let tensor =
    ///     Placement { name: "w".into(), buffer_size: 400_000, elements: 100_000, ..Placement::default() };
    /// let plan = Plan::new(&[tensor], &Clip::global_norm(1.0), &limits).unwrap();
    /// assert_eq!(plan.partials, 7); // 100,000 elements in chunks of 16,384
    /// assert_eq!(plan.dispatches.len(), 1);
    /// # Ok::<(), gradclip::PlanError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// A clip that does not validate, tensors without what it needs, unaligned, overlapping or overlong
    /// ranges, or more than the limits can hold.
    pub fn new(tensors: &[Placement], clip: &Clip, limits: &PlanLimits) -> Result<Plan, PrepareError> {
        let infos: Vec<TensorInfo> = tensors.iter().map(Placement::info).collect();
        check::dtypes(tensors)?;
        let parts = Segments::new(&infos, clip)?;
        let tensors = &without_excluded_parameters(tensors, &parts, &infos);
        let placed = Placed::all(tensors, &parts, &infos);
        let ranges = placed.iter().map(|p| check::BoundRange { at: p.at, may_share: p.measured });
        check::ranges(&ranges.collect::<Vec<_>>())?;
        let norms = history_norms(clip, &parts);
        check::sizes(&placed, &parts, norms, limits)?;
        let packed = pack::rows(&placed, &limits.for_norm(Summation::from(clip.norm)))?;

        let partials: u32 = placed.iter().map(|p| p.partials).sum();
        let mut of_partials = sums::of_tensors(&placed, &parts);
        let tensors_summed = of_partials.len() as u32;
        // Where each tensor is one block, the block would only be copied.
        let cut = parts.cut() && partials > BLOCK;
        let of_blocks = sums::needs_blocks(&of_partials, cut, limits.block).then(|| {
            let (blocks, of_blocks) = sums::in_blocks(&of_partials, parts.cut(), limits.block);
            of_partials = blocks;
            of_blocks
        });
        let of_segments = sums::of_segments(&parts, tensors.len(), of_blocks.as_deref(), &mut of_partials);
        let segments = Combine::new(of_segments, Vec::new(), limits)?;
        let whole = of_blocks.is_none();
        let finish = Finish::new(&placed, &parts, clip, (&of_partials, whole), &segments, &packed, limits);
        let (units, members) = sums::of_units(&placed, &parts, limits.workgroup_size);
        let of_partials = Combine::new([of_partials, units].concat(), members, limits)?;
        let (blocks, tensors_combined) = match of_blocks {
            None => (None, of_partials),
            Some(of_blocks) => (Some(of_partials), Combine::new(of_blocks, Vec::new(), limits)?),
        };
        let segment_rows = sums::decided(&parts, limits.workgroup_size);
        let mut sum_of = vec![0; tensors.len()];
        parts.order.iter().zip(0..).for_each(|(&tensor, place)| sum_of[tensor as usize] = place);
        Ok(Plan {
            dispatches: packed.both,
            measured: packed.measured,
            rows: packed.rows,
            units: packed.units,
            unit_rows: packed.unit_rows,
            mapped: packed.mapped,
            map_rows: packed.map_rows,
            seams: packed.seams,
            partials,
            block_sums: blocks.as_ref().map_or(0, |_| tensors_combined.runs.iter().map(|r| r.count).sum()),
            blocks,
            tensors: tensors_combined,
            segments,
            finish,
            segment_grid: grid(segment_rows.len() as u64, limits)?,
            segment_rows,
            segment_of: parts.owners.iter().map(|o| o.first()).collect(),
            sum_of,
            tensors_summed,
            history_bytes: history_bytes(clip, &parts, norms),
            parts,
        })
    }

    /// Plans a step or an accumulation over the same tensors.
    ///
    /// # Errors
    ///
    /// Ranges that are unaligned, overlap or leave their buffer, or more bindings for one slot than the
    /// limits allow.
    pub fn fused(&self, tensors: &[Operands], limits: &PlanLimits) -> Result<FusedPlan, PrepareError> {
        let mut fused = FusedPlan::new(tensors, &self.parts, limits)?;
        fused.add_row_wise(tensors, &self.parts, limits)?;
        Ok(fused)
    }

    /// What limits the updates of these tensors, which `fused` moves.
    pub(crate) fn ratios(
        &self,
        fused: &FusedPlan,
        tensors: &[Operands],
        limits: &PlanLimits,
    ) -> Result<Ratios, PlanError> {
        Ratios::new(fused.measuring(tensors, &self.parts, limits)?, limits)
    }

    /// Number of segments that have an outcome, that of the whole set counted.
    pub fn segment_count(&self) -> usize {
        self.parts.decided() as usize
    }

    /// Number of segments that have a sum: those of parameters follow those with an outcome.
    pub fn segment_sum_count(&self) -> usize {
        self.parts.summed() as usize
    }

    /// Number of limits: one a segment, for units one a tensor, for rows one; that of the whole set
    /// not counted.
    pub fn limit_count(&self) -> usize {
        self.parts.limits.len()
    }

    /// Number of tensors, empty ones included.
    pub fn tensor_count(&self) -> usize {
        self.segment_of.len()
    }

    /// Number of sums of tensors: parameters have one too.
    pub fn tensor_sum_count(&self) -> usize {
        self.tensors_summed as usize
    }

    /// Number of sums of blocks.
    pub(crate) fn block_count(&self) -> usize {
        self.block_sums as usize
    }

    /// Bytes of the buffers that a prepared pass allocates for working: results, and what adaptive
    /// thresholds remember, included; the ring of read-backs and the few words of each dispatch not.
    pub fn scratch_bytes(&self) -> u64 {
        let bytes = |n: usize, size: usize| (n * size) as u64;
        let apart = |stage| !self.finish.as_ref().is_some_and(|f| f.does(stage));
        let runs = |combine: &Combine| combine.runs.len() + combine.members.len();
        let mut all_runs = self.finish.as_ref().map_or(0, |f| f.table.len());
        if apart(STAGE_TENSORS) {
            all_runs += self.blocks.as_ref().map_or(0, runs) + runs(&self.tensors);
        }
        if apart(STAGE_SEGMENTS) {
            all_runs += runs(&self.segments);
        }
        let decided = if apart(STAGE_DECIDE) { self.segment_rows.len() } else { 0 };
        let sums = self.block_count() + self.tensor_sum_count() + self.segment_sum_count();
        bytes(self.rows.len(), size_of::<ChunkRow>())
            + bytes(self.unit_rows.len(), size_of::<UnitRow>())
            + bytes(self.map_rows.len(), size_of::<MapRow>())
            + bytes(self.seams.len(), size_of::<SeamRow>())
            + bytes(self.partials as usize, size_of::<Partial>())
            + bytes(all_runs, size_of::<Run>())
            + bytes(sums, size_of::<Sum>())
            + bytes(self.segment_count(), size_of::<Outcome>())
            + bytes(decided, size_of::<SegmentRow>())
            + bytes(self.limit_count() + usize::from(self.parts.total), size_of::<Setting>())
            + self.history_bytes
    }
}

/// Norms that adaptive thresholds remember.
fn history_norms(clip: &Clip, parts: &Segments) -> u64 {
    parts.limits.len() as u64 * u64::from(clip.adapt.map_or(0, Adapt::window))
}

/// Bytes of what thresholds and loss scale remember.
fn history_bytes(clip: &Clip, parts: &Segments, norms: u64) -> u64 {
    let states = if clip.adapt.is_some() { parts.limits.len() } else { 0 };
    let fixed = size_of::<Tally>()
        + size_of::<Progress>()
        + size_of::<Adaptation>()
        + size_of::<Skipping>()
        + size_of::<Inputs>();
    let watched = 2 * u64::from(clip.skip.map_or(0, |skip| skip.record().window));
    (fixed + states * size_of::<State>()) as u64 + (norms + watched) * 4
}
