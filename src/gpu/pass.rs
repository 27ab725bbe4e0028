//! A prepared pass: the only place that orders dispatches.

use std::sync::Arc;

use crate::clip::{Clip, Kind};
use crate::error::{ClipError, PrepareError, ReadBackError};
use crate::grad::Grad;
use crate::layout::{Outcome, Setting};
use crate::plan::Plan;
use crate::report::TensorInfo;

use super::clipper::Clipper;
use super::readback::{ReadBack, Ring};
use super::workspace::{Step, Workspace};

/// The clipping of one set of gradients, prepared once and recorded every step.
///
/// It owns its scratch buffers and keeps the gradients' buffers alive. Recording only writes
/// commands: it does not submit, wait, map or allocate on the device.
#[derive(Debug)]
pub struct Pass {
    plan: Plan,
    settings: Vec<Setting>,
    workspace: Workspace,
    ring: Ring,
}

impl Pass {
    pub(super) fn new(
        clipper: &Clipper,
        grads: &[Grad],
        buffers: &[wgpu::Buffer],
        plan: Plan,
        clip: &Clip,
    ) -> Result<Pass, PrepareError> {
        let setting = clip.setting();
        let workspace = Workspace::new(clipper, buffers, &plan, setting, Kind::from(clip.norm))?;
        let infos: Arc<[TensorInfo]> = grads
            .iter()
            .zip(&plan.segment_of)
            .map(|(grad, &segment)| TensorInfo {
                name: grad.name.as_str().into(),
                dtype: grad.dtype,
                elements: grad.elements,
                segment,
            })
            .collect();
        let ring = Ring::new(&clipper.device, clipper.options.read_backs, infos, *clip, &plan)?;
        Ok(Pass { settings: vec![setting; plan.segment_count()], plan, workspace, ring })
    }

    /// Records norm and apply in one compute pass.
    pub fn record(&self, encoder: &mut wgpu::CommandEncoder) {
        let mut pass = begin(encoder, "gradclip");
        self.dispatch_norm(&mut pass);
        self.dispatch_apply(&mut pass);
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
        self.workspace.norm.iter().for_each(|step| step.dispatch(pass));
    }

    /// As [`Pass::record_apply`], into a compute pass of the caller's.
    pub fn dispatch_apply(&self, pass: &mut wgpu::ComputePass<'_>) {
        self.workspace.apply.iter().for_each(|step| step.dispatch(pass));
    }

    /// Records a copy of the results, and returns their way to the host: a future that is ready
    /// once the commands have run and the device was polled (any later submit polls; so does
    /// [`ReadBack::wait`]). Waits for nothing.
    ///
    /// # Errors
    ///
    /// [`ReadBackError::RingFull`] when as many results as the ring has places
    /// ([`ClipperOptions::read_backs`](crate::ClipperOptions::read_backs)) are on their way.
    /// Nothing is recorded then.
    pub fn read_back(&self, encoder: &mut wgpu::CommandEncoder) -> Result<ReadBack, ReadBackError> {
        self.ring.read_back(encoder, &self.workspace.outcomes, &self.workspace.tensor_sums)
    }

    /// Changes the threshold of every segment, from the next submit of `queue` on: commands that
    /// were recorded but not submitted see the new one too.
    ///
    /// # Errors
    ///
    /// [`ClipError::Threshold`] for one that is negative or NaN; nothing changes then.
    pub fn set_threshold(&mut self, queue: &wgpu::Queue, threshold: f32) -> Result<(), ClipError> {
        self.set_thresholds(queue, &vec![threshold; self.settings.len()])
    }

    /// As [`Pass::set_threshold`], one threshold a segment.
    ///
    /// # Errors
    ///
    /// Also [`ClipError::Thresholds`] for another number than there are segments.
    pub fn set_thresholds(&mut self, queue: &wgpu::Queue, thresholds: &[f32]) -> Result<(), ClipError> {
        if thresholds.len() != self.settings.len() {
            let (required, given) = (self.settings.len(), thresholds.len());
            return Err(ClipError::Thresholds { required, given });
        }
        thresholds.iter().try_for_each(|&t| Clip::global_norm(t).validate())?;
        for (setting, threshold) in self.settings.iter_mut().zip(thresholds) {
            setting.threshold = threshold.abs();
        }
        self.write_settings(queue);
        Ok(())
    }

    /// Changes the factor that gradients are multiplied by first, as [`Pass::set_threshold`] does
    /// the threshold.
    ///
    /// # Errors
    ///
    /// [`ClipError::Unscale`] for one that is not positive and finite; nothing changes then.
    pub fn set_unscale(&mut self, queue: &wgpu::Queue, unscale: f32) -> Result<(), ClipError> {
        Clip::measure().unscale(unscale).validate()?;
        self.settings.iter_mut().for_each(|setting| setting.unscale = unscale);
        self.write_settings(queue);
        Ok(())
    }

    fn write_settings(&self, queue: &wgpu::Queue) {
        queue.write_buffer(&self.workspace.settings, 0, bytemuck::cast_slice(&self.settings));
    }

    /// The results on the device: one [`Outcome`](crate::layout::Outcome) a segment, written by the
    /// apply half. Usages `STORAGE | COPY_SRC`.
    pub fn outcomes(&self) -> &wgpu::Buffer {
        &self.workspace.outcomes
    }

    /// The sum of each segment on the device, written by the norm half and read by the apply half:
    /// one [`Sum`](crate::layout::Sum) each. Usages `STORAGE | COPY_SRC | COPY_DST`.
    pub fn segment_sums(&self) -> &wgpu::Buffer {
        &self.workspace.segment_sums
    }

    /// The sum of each tensor on the device, in the order given, written by the norm half.
    pub fn tensor_sums(&self) -> &wgpu::Buffer {
        &self.workspace.tensor_sums
    }

    /// The partial of each chunk on the device, tensor by tensor, written by the norm half: one
    /// [`Partial`](crate::layout::Partial) each.
    pub fn partials(&self) -> &wgpu::Buffer {
        &self.workspace.partials
    }

    /// How the work is cut.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Number of dispatches that one [`Pass::record`] records.
    pub fn dispatch_count(&self) -> usize {
        self.workspace.norm.len() + self.workspace.apply.len()
    }

    /// Bytes of [`Pass::outcomes`].
    pub fn outcome_bytes(&self) -> u64 {
        (self.plan.segment_count() * size_of::<Outcome>()) as u64
    }
}

impl Step {
    fn dispatch(&self, pass: &mut wgpu::ComputePass<'_>) {
        pass.set_pipeline(&self.pipeline.pipeline);
        pass.set_bind_group(0, &self.tables, &[]);
        if let Some(slots) = &self.slots {
            pass.set_bind_group(1, slots, &[]);
        }
        let [x, y] = self.grid;
        pass.dispatch_workgroups(x, y, 1);
    }
}

fn begin<'e>(encoder: &'e mut wgpu::CommandEncoder, label: &str) -> wgpu::ComputePass<'e> {
    encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: Some(label), timestamp_writes: None })
}
