//! What lies on the device between reading gradients and writing them, and from step to step.

use std::sync::Arc;

use bytemuck::Zeroable;
use wgpu::BufferUsages as Usage;

use crate::clip::{Clip, LossScale, Skip};
use crate::combine::NOTHING;
use crate::error::PrepareError;
use crate::layout::{Hyper, Inputs, Outcome, Partial, Run, SegmentRow, Setting, State, Sum, Tally};
use crate::plan::Plan;

use super::make::Make;

/// What thresholds and the loss scale remember from step to step. It outlives the pass it was made for.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) tally: wgpu::Buffer,
    pub(crate) states: wgpu::Buffer,
    pub(crate) norms: wgpu::Buffer,
    pub(crate) progress: wgpu::Buffer,
    /// What the program hands in.
    pub(crate) inputs: wgpu::Buffer,
    /// The series of the rule that leaves out steps.
    pub(crate) watched: wgpu::Buffer,
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
    pub(super) skipping: wgpu::Buffer,
    /// Of loss scaling alone.
    pub(super) hyper: wgpu::Buffer,
    /// The table of [`Plan::finish`], or the rows of segments.
    pub(super) decided: wgpu::Buffer,
}

impl Make<'_> {
    pub(super) fn records(
        &self,
        plan: &Plan,
        clip: &Clip,
        settings: &[Setting],
        memory: Option<Arc<Memory>>,
    ) -> Result<Records, PrepareError> {
        let result = Usage::STORAGE | Usage::COPY_SRC;
        // Writable from outside, so that sums over machines can be put back.
        let sums = result | Usage::COPY_DST;
        let (adaptation, skipping) = ([clip.adaptation()], [Skip::of(clip.skip)]);
        Ok(Records {
            partials: self.empty::<Partial>("gradclip partials", plan.partials as usize, result),
            blocks: self.empty::<Sum>("gradclip block sums", plan.block_count(), result),
            tensor_sums: self.empty::<Sum>("gradclip tensor sums", plan.tensor_sum_count(), sums),
            segment_sums: match clip.use_norm {
                // Of what nobody measures.
                true => {
                    let nothing = vec![NOTHING; plan.segment_sum_count()];
                    self.table("gradclip segment sums", &nothing, NOTHING, sums)?
                }
                false => self.empty::<Sum>("gradclip segment sums", plan.segment_sum_count(), sums),
            },
            settings: self.table(
                "gradclip settings",
                settings,
                Setting::zeroed(),
                Usage::STORAGE | Usage::COPY_DST,
            )?,
            outcomes: self.empty::<Outcome>("gradclip outcomes", plan.segment_count(), result),
            memory: memory.map_or_else(|| self.memory(clip, plan), Ok)?,
            adaptation: self.table("gradclip adaptation", &adaptation, adaptation[0], Usage::UNIFORM)?,
            skipping: self.table("gradclip skipping", &skipping, skipping[0], Usage::UNIFORM)?,
            hyper: self.hyper(LossScale::add_to(clip.loss_scale, Hyper::zeroed()))?,
            decided: match &plan.finish {
                Some(finish) => self.table("gradclip runs", &finish.table, Run::zeroed(), Usage::STORAGE)?,
                None => {
                    self.table("gradclip segments", &plan.segment_rows, SegmentRow::zeroed(), Usage::STORAGE)?
                }
            },
        })
    }

    fn memory(&self, clip: &Clip, plan: &Plan) -> Result<Arc<Memory>, PrepareError> {
        let usage = Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST;
        let states = if clip.adapt.is_some() { plan.limit_count() } else { 0 };
        let norms = states * clip.adaptation().window as usize;
        let begin = LossScale::begin(clip.loss_scale);
        let watched = 2 * Skip::of(clip.skip).window as usize;
        Ok(Arc::new(Memory {
            tally: self.empty::<Tally>("gradclip tally", 1, usage | Usage::UNIFORM),
            states: self.empty::<State>("gradclip states", states, usage),
            norms: self.empty::<f32>("gradclip norms", norms, usage),
            progress: self.table("gradclip progress", &[begin], begin, usage | Usage::UNIFORM)?,
            inputs: self.table("gradclip inputs", &[Inputs::default()], Inputs::default(), usage)?,
            watched: self.empty::<f32>("gradclip watched", watched, usage),
        }))
    }
}
