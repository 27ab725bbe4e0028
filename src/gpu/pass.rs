//! A prepared pass: the only place that orders dispatches.

mod asked;
mod setters;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::clip::Clip;
use crate::error::{PrepareError, ReadBackError};
use crate::grad::Grad;
use crate::layout::{Job, Outcome};
use crate::plan::Plan;
use crate::tensor::TensorInfo;

use super::clipper::Clipper;
use super::decision::{Decision, NormHalf};
use super::make::{Step, Wanted};
use super::mapped::ReadBack;
use super::purpose::Purpose;
use super::readback::{Results, Ring};
use super::records::{Memory, Records};
use super::workspace::{Workspace, measures};
use asked::{Asked, Current};

/// The clipping of one set of gradients, prepared once and recorded every step.
///
/// Threads may share it. Setters are whole against each other; they are several writes to the queue, between which no other
/// thread should submit commands of this pass.
///
/// It owns its scratch buffers and keeps the gradients' buffers alive. Recording only writes
/// commands: it does not submit, wait, map or allocate on the device.
#[derive(Debug)]
pub struct Pass {
    device: wgpu::Device,
    plan: Plan,
    asked: Current,
    infos: Arc<[TensorInfo]>,
    purpose: Purpose,
    /// What follows the decision: of a step, its learning rate.
    hyper: wgpu::Buffer,
    workspace: Workspace,
    /// Whether nothing that is set can change a gradient.
    measures: AtomicBool,
    ring: Ring,
    /// Whether an apply half was recorded: results mean nothing before.
    decides: AtomicBool,
}

impl Pass {
    pub(super) fn new(
        clipper: &Clipper,
        grads: &[Grad],
        buffers: &[wgpu::Buffer],
        plan: Plan,
        clip: &Clip,
        (purpose, memory): (Purpose, Option<Arc<Memory>>),
    ) -> Result<(Pass, Wanted), PrepareError> {
        let asked = Asked::new(clip, &plan.parts);
        let settings = asked.settings(&plan.parts);
        let (workspace, wanted) = Workspace::new(clipper, buffers, &plan, clip, &settings, purpose, memory)?;
        let measures = AtomicBool::new(measures(clip, &settings.0));
        let infos: Arc<[TensorInfo]> = grads.iter().map(Grad::info).collect();
        let ring = Ring::new(
            &clipper.device,
            clipper.options.read_backs,
            infos.clone(),
            *clip,
            &plan,
            purpose.steps(),
        )?;
        let hyper = workspace.records.hyper.clone();
        let (device, decides) = (clipper.device.clone(), AtomicBool::new(false));
        let asked = Current::new(asked);
        let pass = Pass { device, plan, asked, infos, purpose, hyper, workspace, measures, ring, decides };
        Ok((pass, wanted))
    }

    /// The kernels that passes with such a plan record.
    pub(super) fn wanted(clipper: &Clipper, plan: &Plan, clip: &Clip) -> Result<Wanted, PrepareError> {
        let asked = Asked::new(clip, &plan.parts);
        let settings = asked.settings(&plan.parts);
        let made = Workspace::new(clipper, &[], plan, clip, &settings, Purpose::InPlace, None);
        made.map(|(_, wanted)| wanted)
    }

    /// Records norm and apply in one compute pass: fewer dispatches than both halves have.
    ///
    /// A pass that was prepared to measure ([`Clip::measure`]) records no dispatch over gradients for as long
    /// as it only measures. What was recorded so measures only, whatever is set before it is submitted; a factor above
    /// 1 that is set then ([`Pass::set_unscale`]) makes elements count as non-finite that it would take above the largest
    /// `f32`.
    pub fn record(&self, encoder: &mut wgpu::CommandEncoder) {
        let mut pass = begin(encoder, "gradclip");
        let (decision, writes) = self.recorded();
        self.dispatch_together(decision, &mut pass);
        run(writes, &mut pass);
    }

    /// Records the first half: the sum of each tensor and of each segment.
    pub fn record_norm(&self, encoder: &mut wgpu::CommandEncoder) {
        self.dispatch_norm(&mut begin(encoder, "gradclip norm"));
    }

    /// Records the second half: coefficients from the sums of the segments, and the gradients.
    ///
    /// Between the halves [`Pass::segment_sums`] may be replaced, by the sums over several machines
    /// say.
    pub fn record_apply(&self, encoder: &mut wgpu::CommandEncoder) {
        self.dispatch_apply(&mut begin(encoder, "gradclip apply"));
    }

    /// As [`Pass::record_norm`], into a compute pass of the caller's.
    pub fn dispatch_norm(&self, pass: &mut wgpu::ComputePass<'_>) {
        run(&self.workspace.norm.reduce, pass);
        run(&self.workspace.norm.sums, pass);
    }

    /// As [`Pass::record_apply`], into a compute pass of the caller's.
    pub fn dispatch_apply(&self, pass: &mut wgpu::ComputePass<'_>) {
        let (decision, writes) = self.recorded();
        self.dispatch_separate(decision, pass);
        run(writes, pass);
    }

    /// From now on there is something to read back.
    pub(super) fn decides(&self) {
        self.decides.store(true, Ordering::Relaxed);
    }

    /// Everything up to the outcomes, and what follows them by a decision of this pass or one like it.
    pub(super) fn dispatch_together(&self, decision: &Decision, pass: &mut wgpu::ComputePass<'_>) {
        self.decides();
        run(&decision.together, pass);
    }

    /// The same after a norm half.
    pub(super) fn dispatch_separate(&self, decision: &Decision, pass: &mut wgpu::ComputePass<'_>) {
        self.decides();
        run(&decision.separate, pass);
    }

    /// Which of the decisions is recorded as things are set.
    pub(super) fn decision(&self) -> &Decision {
        self.recorded().0
    }

    /// That decision and what follows it, of one moment: another thread may set something meanwhile.
    fn recorded(&self) -> (&Decision, &[Step]) {
        match &self.workspace.measuring {
            Some(measuring) if self.measures.load(Ordering::Relaxed) => (measuring, &[]),
            _ => (&self.workspace.decision, &self.workspace.apply),
        }
    }

    /// Records a copy of the results, and returns their way to the host: a future that is ready
    /// once the commands have run and the device was polled (any later submit polls; so does
    /// [`ReadBack::wait`]). Waits for nothing.
    ///
    /// # Errors
    ///
    /// [`ReadBackError::Undecided`] where no apply half was ever recorded;
    /// [`ReadBackError::RingFull`] when as many results as the ring has places
    /// ([`ClipperOptions::read_backs`](crate::ClipperOptions::read_backs)) are on their way.
    /// Nothing is recorded then.
    pub fn read_back(&self, encoder: &mut wgpu::CommandEncoder) -> Result<ReadBack, ReadBackError> {
        if !self.decides.load(Ordering::Relaxed) {
            return Err(ReadBackError::Undecided);
        }
        let Records { outcomes, tensor_sums, memory, .. } = &self.workspace.records;
        let results = Results { outcomes, sums: tensor_sums, memory, hyper: &self.hyper };
        self.ring.read_back(encoder, results)
    }

    pub(super) fn norm(&self) -> &NormHalf {
        &self.workspace.norm
    }

    /// What jobs begin as of dispatches that are recorded with those of a pass nothing was set for yet.
    pub(super) fn job(&self) -> Job {
        self.workspace.job
    }

    pub(super) fn records(&self) -> &Records {
        &self.workspace.records
    }

    /// What follows the decision instead, which reports tell of.
    pub(super) fn follow_with(&mut self, hyper: &wgpu::Buffer) {
        self.hyper = hyper.clone();
    }

    /// Jobs of dispatches that are recorded with those of this pass, so that setters reach them.
    pub(super) fn add_jobs(&mut self, jobs: Vec<wgpu::Buffer>) {
        self.workspace.jobs.extend(jobs);
    }

    /// The tensors as they were prepared.
    pub(super) fn infos(&self) -> &[TensorInfo] {
        &self.infos
    }

    /// What is asked, as it is set.
    pub(super) fn clip(&self) -> Clip {
        self.asked.lock().clip
    }

    /// The steps so far on the device, and the segments clipped and changed in the last one: a
    /// [`Tally`](crate::records::Tally), written by the apply half. Usages `STORAGE | UNIFORM | COPY_SRC`.
    pub fn tally(&self) -> &wgpu::Buffer {
        &self.workspace.records.memory.tally
    }

    /// Loss scale and optimiser steps on the device: a [`Progress`](crate::records::Progress), written by
    /// the apply half. Usages `STORAGE | UNIFORM | COPY_SRC`: the forward pass may bind it and multiply
    /// the loss by its first word.
    pub fn progress(&self) -> &wgpu::Buffer {
        &self.workspace.records.memory.progress
    }

    /// What the program hands in for a step: an [`Inputs`](crate::records::Inputs), whose loss [`Skip::with_loss`](crate::Skip::with_loss)
    /// watches and whose norm [`Clip::use_norm`] takes; read by the apply half. Usages `STORAGE | COPY_SRC | COPY_DST`: a shader of the program's own writes it, or a copy from
    /// where the loss lies.
    pub fn inputs(&self) -> &wgpu::Buffer {
        &self.workspace.records.memory.inputs
    }

    /// The results on the device: one [`Outcome`](crate::records::Outcome) a segment, written by the
    /// apply half. Usages `STORAGE | COPY_SRC`.
    pub fn outcomes(&self) -> &wgpu::Buffer {
        &self.workspace.records.outcomes
    }

    /// The sum of each segment on the device, written by the norm half and read by the apply half:
    /// one [`Sum`](crate::records::Sum) each. Usages `STORAGE | COPY_SRC | COPY_DST`.
    pub fn segment_sums(&self) -> &wgpu::Buffer {
        &self.workspace.records.segment_sums
    }

    /// The sum of each tensor on the device, one [`Sum`](crate::records::Sum) each, written by the norm half;
    /// [`Pass::tensor_sum_index`] says which is whose.
    pub fn tensor_sums(&self) -> &wgpu::Buffer {
        &self.workspace.records.tensor_sums
    }

    /// Index in [`Pass::tensor_sums`] of the sum of a tensor, counted as it was prepared; `None` past the last.
    pub fn tensor_sum_index(&self, tensor: usize) -> Option<usize> {
        self.plan.sum_of.get(tensor).map(|&index| index as usize)
    }

    /// The partial of each chunk on the device, tensor by tensor, written by the norm half: one
    /// [`Partial`](crate::layout::Partial) each.
    #[doc(hidden)]
    pub fn partials(&self) -> &wgpu::Buffer {
        &self.workspace.records.partials
    }

    /// How the work is cut.
    #[doc(hidden)]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Number of dispatches that one [`Pass::record`] records as things are set.
    ///
    /// For gradients of one type in one arena that one kernel reduces and one writes, it is as follows; in brackets
    /// the numbers of [`Pass::half_dispatch_counts`]. The second column holds on hardware, for up to 4,096
    /// chunks and 256 segments unless a row says otherwise; the third on software adapters, on devices with less than ten storage buffers a stage
    /// where thresholds adapt, and for [`ClipperOptions::finish`](crate::ClipperOptions::finish)`(false)`. One chunk takes three
    /// where a device has less than nine.
    ///
    /// | what is clipped | one workgroup finishes | a dispatch a stage |
    /// |---|---|---|
    /// | global | 3 (2 + 2) | 5 (3 + 2) |
    /// | one tensor of one chunk | 2 (2 + 2) | 4 (2 + 2) |
    /// | groups | 3 (2 + 2) | 5 (3 + 3) |
    /// | tensor | 3 (2 + 2) | 4 (2 + 3) |
    /// | units | 3 (2 + 2) | 4 (2 + 3) |
    /// | rows | 3 (2 + 2) | 4 (2 + 3) |
    /// | `Clip::measure` | 2 (2 + 1) | 4 (3 + 1) |
    /// | tensor, with a total | 3 (2 + 2) | 5 (3 + 3) |
    /// | global, adapting by a window | 3 (2 + 2) | 6 (3 + 3) |
    /// | tensor, adapting by an average | 3 (2 + 2) | 5 (2 + 3) |
    /// | tensor, adapting by a window | 5 (2 + 3) | 5 (2 + 3) |
    /// | global, loss scale | 3 (2 + 2) | 6 (3 + 3) |
    /// | tensor, average and loss scale | 3 (2 + 2) | 6 (2 + 4) |
    /// | global, an optimiser's step | 3 | 6 |
    /// | global, an optimiser's step that limits updates | 6 | 9 |
    /// | global, clipped accumulation | 3 | 5 |
    /// | global, a rule that leaves out steps | 5 (2 + 3) | 6 (3 + 3) |
    /// | tensor, a rule that leaves out steps | 5 (2 + 3) | 6 (3 + 4) |
    /// | global, a norm that is handed in | 3 (0 + 3) | 3 (0 + 3) |
    /// | global, more than 4,096 chunks | 4 (3 + 2) | 5 (3 + 2) |
    /// | global, that and adapting and loss scale | 4 (3 + 2) | 7 (3 + 4) |
    /// | groups, more than 4,096 chunks | 4 (3 + 2) | 5 (3 + 3) |
    /// | tensor, more than 256 | 4 (2 + 3) | 4 (2 + 3) |
    /// | tensor, more than 256, with a total | 5 (3 + 3) | 5 (3 + 3) |
    /// | tensor, more than 256, average and loss scale | 6 (2 + 4) | 6 (2 + 4) |
    /// | units, more than 256 | 4 (2 + 3) | 4 (2 + 3) |
    /// | units, more than 4,096 | 5 (3 + 3) | 5 (3 + 3) |
    /// | rows, more than 256 | 4 (2 + 3) | 4 (2 + 3) |
    /// | rows, more than 4,096 | 5 (3 + 3) | 5 (3 + 3) |
    pub fn dispatch_count(&self) -> usize {
        let (decision, writes) = self.recorded();
        decision.together.len() + writes.len()
    }

    /// Numbers of dispatches that [`Pass::record_norm`] and [`Pass::record_apply`] record as things are set.
    pub fn half_dispatch_counts(&self) -> [usize; 2] {
        let NormHalf { reduce, sums, .. } = &self.workspace.norm;
        let (decision, writes) = self.recorded();
        [reduce.len() + sums.len(), decision.separate.len() + writes.len()]
    }

    /// Bytes of [`Pass::outcomes`].
    pub fn outcome_bytes(&self) -> u64 {
        (self.plan.segment_count() * size_of::<Outcome>()) as u64
    }
}

impl Step {
    fn dispatch(&self, pass: &mut wgpu::ComputePass<'_>) {
        self.bind(pass);
        let [x, y] = self.grid;
        pass.dispatch_workgroups(x, y, 1);
    }

    /// With as many workgroups as lie there on the device: its own or none.
    pub(super) fn dispatch_indirect(
        &self,
        arguments: &wgpu::Buffer,
        at: u64,
        pass: &mut wgpu::ComputePass<'_>,
    ) {
        self.bind(pass);
        pass.dispatch_workgroups_indirect(arguments, at);
    }

    fn bind(&self, pass: &mut wgpu::ComputePass<'_>) {
        pass.set_pipeline(self.pipeline.compiled());
        pass.set_bind_group(0, &self.tables, &[]);
        if let Some(slots) = &self.slots {
            pass.set_bind_group(1, slots, &[]);
        }
    }
}

/// Dispatches one after the other.
pub(super) fn run(steps: &[Step], pass: &mut wgpu::ComputePass<'_>) {
    steps.iter().for_each(|step| step.dispatch(pass));
}

pub(super) fn begin<'e>(encoder: &'e mut wgpu::CommandEncoder, label: &str) -> wgpu::ComputePass<'e> {
    encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: Some(label), timestamp_writes: None })
}
