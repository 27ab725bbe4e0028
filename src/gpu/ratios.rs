//! The dispatches between a decision and an update that has a ratio a tensor.

use wgpu::BufferUsages as Usage;

use crate::clip::Summation;
use crate::error::PrepareError;
use crate::kernels::Kernel;
use crate::layout::{Job, MeasuredRow, Sum};
use crate::optimizer::Optimizer;
use crate::plan::Ratios;
use crate::tensor::DType;

use super::make::{Make, Step};
use super::records::Records;

impl Make<'_> {
    /// What an optimiser's updates and their parameters measure, and the factor of each update, which goes into `rates`.
    pub(super) fn ratios(
        &mut self,
        plan: &Ratios,
        optimizer: &Optimizer,
        records: &Records,
        [hyper, rates]: [&wgpu::Buffer; 2],
    ) -> Result<Vec<Step>, PrepareError> {
        let kernel = match optimizer {
            Optimizer::Lars(_) => Kernel::MeasureLars,
            _ => Kernel::MeasureAdam,
        };
        // These squares are added up whatever the norm is that limits gradients.
        let norm = self.exchange_summation(Summation::Two);
        let filler: MeasuredRow = bytemuck::Zeroable::zeroed();
        let rows = self.table("gradclip measured chunks", &plan.rows(), filler, Usage::STORAGE)?;
        let tensors = plan.measured.tensors.len();
        let sums = self.empty::<Sum>("gradclip sums of updates", 2 * tensors, Usage::STORAGE);
        let progress = &records.memory.progress;
        let mut steps = Vec::new();
        let tables = [hyper, progress, &rows, rates, &records.outcomes];
        for dispatch in &plan.measured.dispatches {
            steps.push(self.fused(kernel, dispatch, false, &tables)?);
        }
        let tables = [&rows, &sums, &records.segment_sums, &records.memory.tally];
        steps.push(self.combine(Kernel::Partials, &plan.sums, &tables, false)?);
        let job = Job { rows: tensors as u32, ..self.job };
        let tables = [hyper, progress, &sums, rates];
        steps.push(self.step(Kernel::Ratio, DType::F32, job, &tables, None, plan.grid)?);
        self.exchange_summation(norm);
        Ok(steps)
    }
}
