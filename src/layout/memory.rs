//! The records of what a clip remembers from step to step, and of the rules that it remembers for.

use bytemuck::{Pod, Zeroable};

use super::constants::ADAPT_NOISY_QUANTILE;

/// The constants of an adaptive threshold, see [`Adapt`](crate::Adapt).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct Adaptation {
    /// One of the `ADAPT_` constants.
    pub rule: u32,
    /// Norms that a history keeps.
    pub window: u32,
    /// Steps of warm-up, or the low word of the key of noise.
    pub steps: u32,
    /// One of the `REACTION_` constants, or the high word of that key.
    pub reaction: u32,
    /// Factor, percentile, z or quantile.
    pub a: f32,
    /// Decay or rate.
    pub b: f32,
    /// Part of the average that a norm is raised to, or the standard deviation of noise.
    pub c: f32,
    /// Least norm that is not raised, or the number of segments expected.
    pub d: f32,
    /// The largest factor of a norm that is raised; 0 for any.
    pub e: f32,
    /// The smallest factor of a norm that is clipped.
    pub f: f32,
    /// What thresholds are at least.
    pub least: f32,
    /// What thresholds are at most.
    pub most: f32,
}

impl Adaptation {
    /// The same without the key of noise: what is saved and told of.
    pub(crate) fn without_key(self) -> Adaptation {
        if self.rule == ADAPT_NOISY_QUANTILE { Adaptation { steps: 0, reaction: 0, ..self } } else { self }
    }
}

/// The constants of a rule that leaves out steps, see [`Skip`](crate::Skip).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct Skipping {
    /// The largest norm of a step that is not left out; infinity for any.
    pub above: f32,
    /// Standard deviations above the mean.
    pub sigma: f32,
    /// Values that a series keeps; 0 where none is watched.
    pub window: u32,
    /// Values, this step's among them, from which on there are decisions.
    pub first: u32,
    /// Steps in a row that are left out at most before the rule gives up.
    pub most: u32,
    /// The `SKIP_` constants for it.
    pub flags: u32,
}

/// What a program hands in from step to step: [`Pass::inputs`](crate::Pass::inputs).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct Inputs {
    /// The loss of this step, for [`Skip::with_loss`](crate::Skip::with_loss). 0 at first.
    pub loss: f32,
    /// The norm of this step's gradients, for [`Clip::use_norm`](crate::Clip::use_norm). Infinite at first: one that was never handed in is
    /// no norm.
    pub norm: f32,
}

impl Default for Inputs {
    fn default() -> Inputs {
        Inputs { loss: 0.0, norm: f32::INFINITY }
    }
}

/// What an adaptive threshold remembers, one a limit; its history of norms lies apart.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct State {
    /// Steps so far.
    pub steps: u32,
    /// Norms that came into the history so far.
    pub observed: u32,
    /// Mean, average, γ or C.
    pub mean: f32,
    /// Variance.
    pub variance: f32,
    /// Threshold of the last step.
    pub threshold: f32,
    /// 1 where the limit on the whole set does not apply.
    pub alone: u32,
    /// Segments whose norm was measured in the last step.
    pub counted: u32,
    /// Those of them whose norm exceeded the threshold.
    pub over: u32,
    /// What norms were raised to in the last step; 0 for none.
    pub raised: f32,
}

/// What happened so far and in the last step, over all segments.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct Tally {
    /// Steps so far.
    pub steps: u32,
    /// Steps in which some segment was clipped.
    pub clipped_steps: u32,
    /// Steps in which some segment was left alone because of a non-finite element.
    pub skipped_steps: u32,
    /// Segments clipped in the last step: per-example clipping's number of clipped examples.
    pub clipped: u32,
    /// Segments skipped in the last step.
    pub skipped: u32,
    /// Segments changed at all in the last step.
    pub changed: u32,
    /// The unscale factor of the last step.
    pub unscale: f32,
    /// Segments that held a non-finite element in the last step.
    pub non_finite: u32,
}
