//! The dispatches between partials and gradients: sums, thresholds, outcomes, and what the next step begins with.
//!
//! Small sets take one of them, of the kernel that does all of it ([`Plan::finish`]); others one a stage.

use bytemuck::Zeroable;
use wgpu::BufferUsages as Usage;

use crate::clip::Clip;
use crate::error::PrepareError;
use crate::kernels::Kernel;
use crate::layout::{Job, NONE, Run, STAGE_ADVANCE, STAGE_DECIDE, STAGE_SEGMENTS, STAGE_TENSORS};
use crate::plan::{Combine, Finish, Plan, grid};
use crate::tensor::DType;

use super::make::{Make, Step};
use super::records::{Memory, Records};

/// From sums to outcomes, and to the next loss scale and corrections where they follow.
#[derive(Debug)]
pub(crate) struct Decision {
    /// As the first part of an apply half that is recorded by itself.
    pub(crate) separate: Vec<Step>,
    /// With all that comes before, where both halves are recorded in one: small sets are summed by the same dispatch.
    pub(crate) together: Vec<Step>,
}

/// From gradients to the sums of segments.
#[derive(Debug)]
pub(crate) struct NormHalf {
    /// Chunks.
    pub(crate) reduce: Vec<Step>,
    /// Tensors and segments, where this half is recorded by itself.
    pub(crate) sums: Vec<Step>,
    /// Where both halves are recorded in one, what of that is not left to the decision.
    before: Vec<Step>,
}

impl Plan {
    /// Whether a kernel other than the deciding one begins the step: where several workgroups decide.
    pub(super) fn begins_apart(&self, clip: &Clip) -> bool {
        self.finish.is_none() && (clip.adapt.is_some() || self.segment_count() != 1)
    }

    /// Whether the first of the sums begins it, where both halves are recorded in one: else a dispatch would only
    /// clear counters.
    pub(super) fn begins_in_sums(&self, clip: &Clip) -> bool {
        self.begins_apart(clip) && clip.adapt.is_none() && !clip.use_norm
    }

    /// Whether a stage takes dispatches of its own.
    fn is_separate(&self, stage: u32) -> bool {
        !self.finish.as_ref().is_some_and(|finish| finish.does(stage))
    }
}

impl Make<'_> {
    /// The sums that take dispatches of their own. The first of them may begin the step.
    fn sums(&mut self, plan: &Plan, records: &Records, begins: bool) -> Result<Vec<Step>, PrepareError> {
        let Records { partials, blocks, tensor_sums, segment_sums, memory, .. } = records;
        let mut steps = Vec::new();
        if plan.is_separate(STAGE_TENSORS) {
            let (first, sums) = match &plan.blocks {
                None => (&plan.tensors, tensor_sums),
                Some(of_blocks) => (of_blocks, blocks),
            };
            let tables = [partials, sums, segment_sums, &memory.tally];
            steps.push(self.combine(Kernel::Partials, first, &tables, begins)?);
            if plan.blocks.is_some() {
                steps.push(self.combine(Kernel::Sums, &plan.tensors, &[blocks, tensor_sums], false)?);
            }
        }
        if plan.is_separate(STAGE_SEGMENTS) && !plan.segments.runs.is_empty() {
            steps.push(self.combine(Kernel::Sums, &plan.segments, &[tensor_sums, segment_sums], false)?);
        }
        Ok(steps)
    }

    /// All sums after chunks are reduced.
    pub(super) fn norm_half(
        &mut self,
        plan: &Plan,
        clip: &Clip,
        records: &Records,
        reduce: Vec<Step>,
    ) -> Result<NormHalf, PrepareError> {
        if clip.use_norm {
            return Ok(NormHalf { reduce: Vec::new(), sums: Vec::new(), before: Vec::new() });
        }
        let before = self.sums(plan, records, plan.begins_in_sums(clip))?;
        let mut sums = before.clone();
        match &plan.finish {
            None if plan.begins_in_sums(clip) => sums = self.sums(plan, records, false)?,
            Some(finish) if finish.does(STAGE_TENSORS) || finish.segment_runs > 0 => {
                let stages = finish.stages & (STAGE_TENSORS | STAGE_SEGMENTS);
                sums.push(self.finish(finish, plan, clip, records, (stages, None), None)?);
            }
            _ => {}
        }
        Ok(NormHalf { reduce, sums, before })
    }

    /// `hyper` says what follows the outcomes, if anything does; `measures` that no gradient is written.
    pub(crate) fn decision(
        &mut self,
        plan: &Plan,
        clip: &Clip,
        records: &Records,
        norm: &NormHalf,
        (hyper, measures): (Option<&wgpu::Buffer>, bool),
    ) -> Result<Decision, PrepareError> {
        self.job.measures = measures.into();
        let decision = match &plan.finish {
            Some(finish) => {
                let ends = STAGE_DECIDE | if hyper.is_some() { STAGE_ADVANCE } else { 0 };
                let mut separate = self.ahead(plan, clip, records)?;
                let apart = !separate.is_empty();
                separate.push(self.finish(finish, plan, clip, records, (ends, hyper), None)?);
                let together = match apart {
                    // What comes ahead needs whole sums.
                    true => norm.reduce.iter().chain(&norm.sums).chain(&separate).cloned().collect(),
                    false => {
                        let stages = ends | finish.stages & (STAGE_TENSORS | STAGE_SEGMENTS);
                        let only = norm.reduce.first().filter(|_| finish.reduces);
                        let begin = norm.reduce.iter().chain(&norm.before).filter(|_| only.is_none());
                        let last = self.finish(finish, plan, clip, records, (stages, hyper), only)?;
                        begin.cloned().chain([last]).collect()
                    }
                };
                Decision { separate, together }
            }
            None => self.decision_apart(plan, clip, records, norm, hyper)?,
        };
        self.job.measures = 0;
        Ok(decision)
    }

    fn decision_apart(
        &mut self,
        plan: &Plan,
        clip: &Clip,
        records: &Records,
        norm: &NormHalf,
        hyper: Option<&wgpu::Buffer>,
    ) -> Result<Decision, PrepareError> {
        let mut together: Vec<Step> = norm.reduce.iter().chain(&norm.before).cloned().collect();
        let ahead = self.ahead(plan, clip, records)?;
        let mut first = None;
        if plan.begins_apart(clip) {
            first = Some(self.threshold(plan, clip, records)?);
        }
        together.extend(ahead.iter().cloned());
        if !plan.begins_in_sums(clip) {
            together.extend(first.clone());
        }
        let mut rest = vec![self.coefficient(plan, clip, records)?];
        if let Some(hyper) = hyper {
            rest.push(self.advance(hyper, &records.memory)?);
        }
        let separate = ahead.into_iter().chain(first).chain(rest.iter().cloned()).collect();
        together.extend(rest);
        Ok(Decision { separate, together })
    }

    /// `reduce` is the dispatch that this one stands for, too, where a set has one chunk.
    fn finish(
        &mut self,
        finish: &Finish,
        plan: &Plan,
        clip: &Clip,
        records: &Records,
        (stages, hyper): (u32, Option<&wgpu::Buffer>),
        reduce: Option<&Step>,
    ) -> Result<Step, PrepareError> {
        let Finish { runs, serial, segment_runs, segment_serial, members, decided, .. } = *finish;
        let job = Job {
            stages,
            runs,
            serial,
            segment_runs,
            segment_serial,
            decided,
            rows: members,
            ..self.total_and_adaptive(plan, clip)
        };
        let Records { partials, tensor_sums, segment_sums, settings, outcomes, memory, .. } = records;
        let Memory { tally, states, norms, progress, .. } = &**memory;
        let hyper = hyper.unwrap_or(&records.hyper);
        let mut tables = vec![
            &records.adaptation,
            hyper,
            &records.decided,
            partials,
            tensor_sums,
            segment_sums,
            settings,
            tally,
            outcomes,
            progress,
        ];
        if clip.adapt.is_some() {
            tables.extend([states, norms]);
        }
        match reduce.zip(plan.dispatches.iter().chain(&plan.measured).next()) {
            Some((step, dispatch)) => self.step_over(Kernel::ReduceFinish, (dispatch, step), job, &tables),
            None => self.step(Kernel::Finish, DType::F32, job, &tables, None, [1, 1]),
        }
    }

    /// What follows from what the step was.
    fn advance(&mut self, hyper: &wgpu::Buffer, memory: &Memory) -> Result<Step, PrepareError> {
        let tables = [hyper, &memory.tally, &memory.progress];
        self.step(Kernel::Advance, DType::F32, self.job, &tables, None, [1, 1])
    }

    pub(super) fn combine(
        &mut self,
        kernel: Kernel,
        combine: &Combine,
        tables: &[&wgpu::Buffer],
        begins: bool,
    ) -> Result<Step, PrepareError> {
        let Combine { runs, members, serial, .. } = combine;
        let table = [&runs[..], members].concat();
        let (rows, runs) = (members.len() as u32, runs.len() as u32);
        let job = Job { serial: *serial, runs, rows, begins: begins.into(), ..self.job };
        let runs = self.table("gradclip runs", &table, Run::zeroed(), Usage::STORAGE)?;
        let tables: Vec<_> = std::iter::once(&runs).chain(tables.iter().copied()).collect();
        self.step(kernel, DType::F32, job, &tables, None, combine.grid)
    }

    fn total_and_adaptive(&self, plan: &Plan, clip: &Clip) -> Job {
        Job {
            total: if plan.parts.total { plan.parts.count } else { NONE },
            adaptive: if clip.adapt.is_some() { plan.limit_count() as u32 } else { 0 },
            ..self.job
        }
    }

    /// What comes before anything is decided: the norm that the program hands in, and whether the step is left out.
    fn ahead(&mut self, plan: &Plan, clip: &Clip, records: &Records) -> Result<Vec<Step>, PrepareError> {
        let given = clip.use_norm.then(|| self.given(records)).transpose()?;
        let skip = clip.skip.map(|_| self.skip(plan, clip, records)).transpose()?;
        Ok(given.into_iter().chain(skip).collect())
    }

    fn given(&mut self, records: &Records) -> Result<Step, PrepareError> {
        let tables = [&records.memory.inputs, &records.segment_sums];
        self.step(Kernel::Given, DType::F32, self.job, &tables, None, [1, 1])
    }

    /// Whether the step is left out.
    fn skip(&mut self, plan: &Plan, clip: &Clip, records: &Records) -> Result<Step, PrepareError> {
        let Records { segment_sums, settings, memory, skipping, .. } = records;
        let Memory { progress, inputs, watched, .. } = &**memory;
        let job = self.total_and_adaptive(plan, clip);
        let tables = [skipping, segment_sums, settings, inputs, progress, watched];
        self.step(Kernel::Skip, DType::F32, job, &tables, None, [1, 1])
    }

    fn threshold(&mut self, plan: &Plan, clip: &Clip, records: &Records) -> Result<Step, PrepareError> {
        let Records { segment_sums, settings, memory, adaptation, .. } = records;
        let Memory { tally, states, norms, progress, .. } = &**memory;
        let job = self.total_and_adaptive(plan, clip);
        let grid = grid(u64::from(job.adaptive), &self.clipper.limits)?;
        let tables = [adaptation, segment_sums, settings, states, norms, tally, progress];
        self.step(Kernel::Threshold, DType::F32, job, &tables, None, grid)
    }

    fn coefficient(&mut self, plan: &Plan, clip: &Clip, records: &Records) -> Result<Step, PrepareError> {
        let Records { segment_sums, settings, outcomes, memory, decided, .. } = records;
        let Memory { tally, states, progress, .. } = &**memory;
        let job = Job {
            runs: plan.segment_rows.len() as u32,
            begins: u32::from(!plan.begins_apart(clip)),
            ..self.total_and_adaptive(plan, clip)
        };
        let tables = [decided, segment_sums, settings, states, tally, outcomes, progress];
        self.step(Kernel::Coefficient, DType::F32, job, &tables, None, plan.segment_grid)
    }
}
