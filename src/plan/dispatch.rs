//! Windows of buffers, and dispatches over them.

use std::ops::Range;

use crate::error::PlanError;
use crate::layout::{Run, SERIAL_RUN};
use crate::tensor::DType;

use super::limits::PlanLimits;

/// A window is kept below 2 GiB, whatever the device allows, so that byte offsets fit 31 bits.
pub(super) const LARGEST_WINDOW: u64 = 1 << 31;

/// An aligned range of a buffer, bound to one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Number of the buffer.
    pub buffer: usize,
    /// First byte.
    pub offset: u64,
    /// Bytes, a multiple of 4.
    pub size: u64,
}

impl Window {
    pub(super) fn overlaps(&self, other: &Window) -> bool {
        self.buffer == other.buffer
            && self.offset < other.offset + other.size
            && other.offset < self.offset + self.size
    }
}

/// Rows of one table that one dispatch works on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dispatch {
    /// Element type of all its rows.
    pub dtype: DType,
    /// Whether every row begins and ends at a multiple of 16 bytes, see [`PlanLimits::vectors`].
    pub vectors: bool,
    /// The windows bound, by slot.
    pub windows: Vec<Window>,
    /// Rows of the table.
    pub rows: Range<u32>,
    /// Those of them, at their end, whose chunks share workgroups in the reduce pass.
    pub short: Range<u32>,
    /// Workgroups that take one row each.
    pub grid: [u32; 2],
    /// Rows of [`Plan::seams`](super::Plan::seams) in these windows; none for 4-byte elements.
    pub seams: Range<u32>,
    /// Workgroups of the kernel that takes one invocation a seam.
    pub seam_grid: [u32; 2],
}

/// Runs that one dispatch adds up, short ones first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Combine {
    /// The runs.
    pub runs: Vec<Run>,
    /// How many of them are added up by one invocation each.
    pub serial: u32,
    /// The tensors whose items runs of several tensors add up: first item and tensor of each.
    pub members: Vec<Run>,
    /// Workgroups.
    pub grid: [u32; 2],
}

impl Combine {
    /// Short runs that stand alone come first: they share workgroups.
    pub(super) fn new(
        mut runs: Vec<Run>,
        members: Vec<Run>,
        limits: &PlanLimits,
    ) -> Result<Combine, PlanError> {
        let serial = |run: &Run| run.lanes == 1 && run.count <= SERIAL_RUN;
        runs.sort_by_key(|run| !serial(run));
        let serial = runs.partition_point(serial) as u32;
        let groups =
            u64::from(serial.div_ceil(limits.workgroup_size)) + runs.len() as u64 - u64::from(serial);
        Ok(Combine { runs, serial, members, grid: grid(groups, limits)? })
    }
}

/// Workgroups as a grid of two dimensions; the second only where one is not enough. The product
/// may exceed `groups`: kernels check.
pub(crate) fn grid(groups: u64, limits: &PlanLimits) -> Result<[u32; 2], PlanError> {
    let most = u64::from(limits.max_workgroups);
    let y = groups.div_ceil(most).max(1);
    if y > most {
        return Err(PlanError::TooLarge { what: "workgroups", required: most * most, given: groups });
    }
    Ok([groups.div_ceil(y).max(1) as u32, y as u32])
}
