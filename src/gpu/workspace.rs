//! The buffers and bind groups of one prepared pass.

use std::sync::Arc;

use bytemuck::Zeroable;
use wgpu::BufferUsages as Usage;

use crate::clip::{Adapt, Clip, LossScale};
use crate::error::PrepareError;
use crate::kernels::Kernel;
use crate::layout::{
    ChunkRow, Hyper, Job, JobSetting, MapRow, Outcome, POLICY_KEEP, POLICY_SKIP, Partial, RULE_NORMALIZE,
    Run, SeamRow, SegmentRow, Setting, State, Sum, Tally, UnitRow,
};
use crate::plan::{Dispatch, Plan};

use super::clipper::Clipper;
use super::decision::{Decision, NormHalf};
use super::make::{Make, Step, job};
use super::pass::Purpose;

/// What thresholds and the loss scale remember from step to step. It outlives the pass it was made for.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) tally: wgpu::Buffer,
    pub(crate) states: wgpu::Buffer,
    pub(crate) norms: wgpu::Buffer,
    pub(crate) progress: wgpu::Buffer,
}

/// What lies between reading gradients and reading them again.
#[derive(Debug)]
pub(crate) struct Records {
    pub(crate) partials: wgpu::Buffer,
    pub(crate) blocks: wgpu::Buffer,
    pub(crate) tensor_sums: wgpu::Buffer,
    pub(crate) segment_sums: wgpu::Buffer,
    pub(crate) settings: wgpu::Buffer,
    pub(crate) outcomes: wgpu::Buffer,
    pub(crate) memory: Arc<Memory>,
    pub(super) adaptation: wgpu::Buffer,
    /// Of loss scaling alone.
    pub(super) hyper: wgpu::Buffer,
    /// The table of [`Plan::finish`], or the rows of segments.
    pub(super) decided: wgpu::Buffer,
}

/// Everything that a pass owns on the device.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) norm: NormHalf,
    pub(crate) decision: Decision,
    /// That of a pass that was prepared only to measure, for as long as it does.
    pub(crate) measuring: Option<Decision>,
    /// Gradients, in place.
    pub(crate) apply: Vec<Step>,
    pub(crate) records: Records,
    /// What every job began as.
    pub(crate) job: Job,
    /// Jobs of the kernels that leave out inactive segments.
    pub(crate) jobs: Vec<wgpu::Buffer>,
}

impl Workspace {
    pub(crate) fn new(
        clipper: &Clipper,
        buffers: &[wgpu::Buffer],
        plan: &Plan,
        clip: &Clip,
        (settings, asked): &(Vec<Setting>, JobSetting),
        purpose: Purpose,
        memory: Option<Arc<Memory>>,
    ) -> Result<Workspace, PrepareError> {
        let JobSetting { until, unscale, largest } = *asked;
        let job = Job { until, unscale, largest, parameters: plan.parts.decided(), ..job() };
        let advances = clip.loss_scale.is_some() || purpose == Purpose::Step;
        let mut make = Make::new(clipper, buffers, clip);
        (make.job, make.advances) = (job, advances);
        let rows = make.table("gradclip chunks", &plan.rows, ChunkRow::zeroed(), Usage::STORAGE)?;
        let records = make.records(plan, clip, settings, memory)?;
        let reduce = make.reduce(plan, &rows, &records)?;
        let norm = make.norm_half(plan, clip, &records, reduce)?;
        let hyper = clip.loss_scale.map(|_| &records.hyper);
        let decision = make.decision(plan, clip, &records, &norm, (hyper, false))?;
        let measures = purpose == Purpose::InPlace && measures(clip, settings);
        let measuring =
            measures.then(|| make.decision(plan, clip, &records, &norm, (None, true))).transpose()?;
        let apply = if purpose == Purpose::InPlace { make.apply(plan, &rows, &records)? } else { Vec::new() };
        make.compile()?;
        let jobs = make.jobs;
        Ok(Workspace { norm, decision, measuring, apply, records, job, jobs })
    }
}

/// Whether a clip that is set so can change no gradient, whatever their values.
pub(super) fn measures(clip: &Clip, settings: &[Setting]) -> bool {
    let keeps = |s: &Setting| {
        s.threshold == f32::INFINITY
            && s.unscale == 1.0
            && s.rule != RULE_NORMALIZE
            && matches!(s.policy, POLICY_SKIP | POLICY_KEEP)
    };
    clip.adapt.is_none() && clip.loss_scale.is_none() && settings.iter().all(keeps)
}

impl Make<'_> {
    fn records(
        &self,
        plan: &Plan,
        clip: &Clip,
        settings: &[Setting],
        memory: Option<Arc<Memory>>,
    ) -> Result<Records, PrepareError> {
        let result = Usage::STORAGE | Usage::COPY_SRC;
        // Writable from outside, so that sums over machines can be put back.
        let sums = result | Usage::COPY_DST;
        let adaptation = [Adapt::record(clip.adapt)];
        Ok(Records {
            partials: self.empty::<Partial>("gradclip partials", plan.partials as usize, result),
            blocks: self.empty::<Sum>("gradclip block sums", plan.block_count(), result),
            tensor_sums: self.empty::<Sum>("gradclip tensor sums", plan.tensor_sum_count(), sums),
            segment_sums: self.empty::<Sum>("gradclip segment sums", plan.segment_sum_count(), sums),
            settings: self.table(
                "gradclip settings",
                settings,
                Setting::zeroed(),
                Usage::STORAGE | Usage::COPY_DST,
            )?,
            outcomes: self.empty::<Outcome>("gradclip outcomes", plan.segment_count(), result),
            memory: memory.map_or_else(|| self.memory(clip, plan), Ok)?,
            adaptation: self.table("gradclip adaptation", &adaptation, adaptation[0], Usage::UNIFORM)?,
            hyper: self.hyper(LossScale::add_to(clip.loss_scale, Hyper::zeroed()))?,
            decided: match &plan.finish {
                Some(finish) => self.table("gradclip runs", &finish.table, Run::zeroed(), Usage::STORAGE)?,
                None => {
                    self.table("gradclip segments", &plan.segment_rows, SegmentRow::zeroed(), Usage::STORAGE)?
                }
            },
        })
    }

    /// Chunks to partials.
    fn reduce(
        &mut self,
        plan: &Plan,
        rows: &wgpu::Buffer,
        records: &Records,
    ) -> Result<Vec<Step>, PrepareError> {
        let (partials, progress) = (&records.partials, &records.memory.progress);
        let units = self.table("gradclip units", &plan.unit_rows, UnitRow::zeroed(), Usage::STORAGE)?;
        let mut steps = Vec::new();
        for dispatch in plan.dispatches.iter().chain(&plan.measured) {
            if dispatch.short != dispatch.rows {
                steps.push(self.rows(Kernel::Reduce, dispatch, &[rows, partials, progress])?);
            }
            if !dispatch.short.is_empty() {
                steps.push(self.rows(Kernel::ReduceShort, dispatch, &[rows, partials, progress])?);
            }
        }
        for dispatch in &plan.units {
            steps.push(self.rows(Kernel::ReduceUnits, dispatch, &[&units, partials, progress])?);
        }
        Ok(steps)
    }

    /// Outcomes to gradients.
    fn apply(
        &mut self,
        plan: &Plan,
        rows: &wgpu::Buffer,
        records: &Records,
    ) -> Result<Vec<Step>, PrepareError> {
        let (outcomes, tally) = (&records.outcomes, &records.memory.tally);
        let map = self.table("gradclip map", &plan.map_rows, MapRow::zeroed(), Usage::STORAGE)?;
        let seams = self.table("gradclip seams", &plan.seams, SeamRow::zeroed(), Usage::STORAGE)?;
        let mut steps = Vec::new();
        let some = |dispatch: &&Dispatch| !dispatch.rows.is_empty();
        for dispatch in plan.dispatches.iter().filter(some) {
            steps.push(self.rows(Kernel::Apply, dispatch, &[rows, outcomes])?);
        }
        for dispatch in plan.mapped.iter().filter(some) {
            steps.push(self.rows(Kernel::ApplyUnits, dispatch, &[&map, outcomes, tally])?);
        }
        let both = plan.dispatches.iter().chain(&plan.mapped).filter(some);
        for dispatch in both.filter(|d| !d.seams.is_empty()) {
            steps.push(self.rows(Kernel::Seams, dispatch, &[&seams, outcomes])?);
        }
        Ok(steps)
    }

    fn memory(&self, clip: &Clip, plan: &Plan) -> Result<Arc<Memory>, PrepareError> {
        let usage = Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST;
        let states = if clip.adapt.is_some() { plan.limit_count() } else { 0 };
        let norms = states * Adapt::record(clip.adapt).window as usize;
        let begin = LossScale::begin(clip.loss_scale);
        Ok(Arc::new(Memory {
            tally: self.empty::<Tally>("gradclip tally", 1, usage | Usage::UNIFORM),
            states: self.empty::<State>("gradclip states", states, usage),
            norms: self.empty::<f32>("gradclip norms", norms, usage),
            progress: self.table("gradclip progress", &[begin], begin, usage | Usage::UNIFORM)?,
        }))
    }
}
