//! Micro-batches that may be left out before they are summed: what decides, and which dispatches then have workgroups.

use wgpu::BufferUsages as Usage;

use crate::clip::Clip;
use crate::error::PrepareError;
use crate::grad::Grad;
use crate::kernels::Kernel;
use crate::layout::Counting;
use crate::tensor::DType;

use super::accumulator::Accumulator;
use super::buffers::filled;
use super::clipper::Clipper;
use super::make::{Make, Step, Wanted};
use super::pass::{Pass, run};
use super::purpose::Purpose;
use super::stepper::Stepper;

/// Workgroups of a dispatch, as indirect dispatches read them.
type Grid = [u32; 3];

/// A pass over micro-batches whose rule says which are left out, and the dispatches that count the others.
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) pass: Pass,
    /// Counts a micro-batch, or ends with what there is.
    counts: [Step; 2],
    /// Micro-batches since the last step: one word.
    pub(super) summed: wgpu::Buffer,
    arguments: wgpu::Buffer,
}

impl Gate {
    /// For sums of `micro_batches` of these gradients, and the step that follows; `corrections` is what the mean over each number of
    /// them takes.
    pub(super) async fn new(
        clipper: &Clipper,
        grads: &[Grad],
        clip: &Clip,
        (micro_batches, sums, corrections): (u32, &Accumulator, &wgpu::Buffer),
        stepper: &Stepper,
    ) -> Result<Gate, PrepareError> {
        let pass = clipper.prepared(grads, clip, Purpose::ReadOnly, None).await?;
        let made = clipper.ready("preparing what leaves out micro-batches", || {
            Gate::assembled(clipper, clip, pass, (micro_batches, sums, corrections), stepper)
        });
        made.await
    }

    fn assembled(
        clipper: &Clipper,
        clip: &Clip,
        mut pass: Pass,
        (micro_batches, sums, corrections): (u32, &Accumulator, &wgpu::Buffer),
        stepper: &Stepper,
    ) -> Result<(Gate, Wanted), PrepareError> {
        let step = stepper.dispatches();
        let all = sums.first.iter().chain(&sums.next).chain(step.iter().copied().flatten());
        let grids: Vec<Grid> = all.map(|step| [step.grid[0], step.grid[1], 1]).collect();
        let mut make = Make::new(clipper, &[], clip);
        make.job = pass.job();
        let table = make.table("gradclip workgroups", &grids, [0; 3], Usage::STORAGE)?;
        let usage = Usage::STORAGE | Usage::INDIRECT;
        let arguments = filled(&clipper.device, "gradclip arguments", bytemuck::cast_slice(&grids), usage)?;
        let usage = Usage::STORAGE | Usage::COPY_DST | Usage::COPY_SRC;
        let summed = filled(&clipper.device, "gradclip micro-batches", &[0; 4], usage)?;
        let mut count = |ends| -> Result<Step, PrepareError> {
            let counting = Counting {
                micro_batches,
                sums: sums.first.len() as u32,
                steps: step.iter().map(|part| part.len() as u32).sum(),
                ends,
            };
            let counting = make.table("gradclip counting", &[counting], counting, Usage::UNIFORM)?;
            let (tally, progress) = (&pass.records().memory.tally, stepper.progress());
            let tables = [&counting, &table, corrections, tally, progress, &summed, &arguments];
            make.step(Kernel::Count, DType::F32, make.job, &tables, None, [1, 1])
        };
        let counts = [count(0)?, count(1)?];
        pass.add_jobs(make.jobs);
        Ok((Gate { pass, counts, summed, arguments }, make.wanted))
    }

    /// What follows a micro-batch's gradients: their norm, their sum unless they are left out, and the step if this is the last one of it.
    pub(super) fn dispatch(&self, sums: &Accumulator, stepper: &Stepper, pass: &mut wgpu::ComputePass<'_>) {
        self.pass.dispatch_together(self.pass.decision(), pass);
        stepper.pass().decides();
        run(&self.counts[..1], pass);
        let (first, next) = (&sums.first[..], &sums.next[..]);
        self.indirect(0, [first, next].into_iter().chain(stepper.dispatches()), pass);
    }

    /// A step over the micro-batches since the last one, if there are any.
    pub(super) fn dispatch_end(
        &self,
        sums: &Accumulator,
        stepper: &Stepper,
        pass: &mut wgpu::ComputePass<'_>,
    ) {
        stepper.pass().decides();
        run(&self.counts[1..], pass);
        self.indirect(2 * sums.first.len(), stepper.dispatches().into_iter(), pass);
    }

    fn indirect<'s>(
        &self,
        first: usize,
        steps: impl Iterator<Item = &'s [Step]>,
        pass: &mut wgpu::ComputePass<'_>,
    ) {
        for (i, step) in (first as u64..).zip(steps.flatten()) {
            step.dispatch_indirect(&self.arguments, i * size_of::<Grid>() as u64, pass);
        }
    }
}
