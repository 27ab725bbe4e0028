//! Where updates and parameters are measured, and what adds their squares up: for optimisers with a ratio a tensor.

use bytemuck::Zeroable;

use crate::error::PlanError;
use crate::layout::{CHUNK, FusedTensor, MeasuredRow, NONE, Run};

use super::dispatch::{Combine, LARGEST_WINDOW, grid};
use super::fused::FusedPlan;
use super::limits::PlanLimits;

/// A row of the table is so many partials long, and these are its own.
const PARTIALS: [u32; 3] = [5, 3, 4];
const _: () = assert!(size_of::<MeasuredRow>() == 16 * PARTIALS[0] as usize);

/// What limits updates.
#[derive(Clone, Debug, PartialEq)]
pub struct Ratios {
    /// The chunks, in dispatches that write nothing of theirs.
    pub measured: FusedPlan,
    /// From their partials to two sums a tensor, of update and parameter.
    pub sums: Combine,
    /// Workgroups that have an invocation a tensor.
    pub grid: [u32; 2],
}

impl Ratios {
    pub(super) fn new(measured: FusedPlan, limits: &PlanLimits) -> Result<Ratios, PlanError> {
        let (given, most) = (measured.rows.len() as u64, limits.max_binding.min(LARGEST_WINDOW));
        let required = most / size_of::<MeasuredRow>() as u64;
        if given > required {
            let what = "chunks of 16,384 elements whose updates are limited";
            return Err(PlanError::TooLarge { what, required, given });
        }
        let runs = measured.tensors.iter().zip(0u32..).filter(|(tensor, _)| tensor.pair != NONE);
        let runs = runs.flat_map(|(tensor, i)| [0, 1].map(|which| run(tensor, i, which)));
        let sums = Combine::new(runs.collect(), Vec::new(), limits)?;
        let groups = (measured.tensors.len() as u64).div_ceil(limits.workgroup_size.into());
        Ok(Ratios { sums, grid: grid(groups, limits)?, measured })
    }

    /// The table of chunks.
    pub(crate) fn rows(&self) -> Vec<MeasuredRow> {
        self.measured.rows.iter().map(|&row| MeasuredRow { row, ..MeasuredRow::zeroed() }).collect()
    }
}

/// Of the updates of tensor `i`, or of its parameters.
fn run(tensor: &FusedTensor, i: u32, which: u32) -> Run {
    let [stride, update, parameter] = PARTIALS;
    Run {
        first: tensor.pair * stride + if which == 0 { update } else { parameter },
        count: tensor.elements.div_ceil(CHUNK),
        target: 2 * i + which,
        stride,
        lanes: 1,
        tensor: i,
        segment: NONE,
        ..Run::zeroed()
    }
}
