//! The buffers and bind groups of one prepared pass.

use std::sync::Arc;

use bytemuck::Zeroable;
use wgpu::BufferUsages as Usage;

use crate::clip::Clip;
use crate::error::PrepareError;
use crate::kernels::Kernel;
use crate::layout::{
    ChunkRow, Job, JobSetting, MapRow, POLICY_KEEP, POLICY_SKIP, RULE_NORMALIZE, SeamRow, Setting, UnitRow,
};
use crate::plan::{Dispatch, Plan};

use super::clipper::Clipper;
use super::decision::{Decision, NormHalf};
use super::make::{Make, Step, Wanted, job};
use super::purpose::Purpose;
use super::records::{Memory, Records};

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
    ) -> Result<(Workspace, Wanted), PrepareError> {
        let JobSetting { until, unscale, largest } = *asked;
        let job = Job { until, unscale, largest, parameters: plan.parts.decided(), ..job() };
        let advances = clip.loss_scale.is_some() || purpose.steps();
        let mut make = Make::new(clipper, buffers, clip);
        (make.job, make.advances) = (job, advances);
        make.scaled |= purpose == Purpose::StepOfSums;
        let rows = make.table("gradclip chunks", &plan.rows, ChunkRow::zeroed(), Usage::STORAGE)?;
        let records = make.records(plan, clip, settings, memory)?;
        let reduce = if clip.use_norm { Vec::new() } else { make.reduce(plan, &rows, &records)? };
        let norm = make.norm_half(plan, clip, &records, reduce)?;
        let hyper = clip.loss_scale.map(|_| &records.hyper);
        let decision = make.decision(plan, clip, &records, &norm, (hyper, false))?;
        let measures = purpose == Purpose::InPlace && measures(clip, settings);
        let measuring =
            measures.then(|| make.decision(plan, clip, &records, &norm, (None, true))).transpose()?;
        let apply = if purpose == Purpose::InPlace { make.apply(plan, &rows, &records)? } else { Vec::new() };
        let Make { jobs, wanted, .. } = make;
        Ok((Workspace { norm, decision, measuring, apply, records, job, jobs }, wanted))
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
    let lets_through = clip.skip.is_some_and(|skip| skip.lets_all_through());
    clip.adapt.is_none() && clip.loss_scale.is_none() && !lets_through && settings.iter().all(keeps)
}

impl Make<'_> {
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
}
