//! The records of what uses clipped gradients: loss scaling, optimiser steps, accumulation.

use bytemuck::{Pod, Zeroable};

/// Bit of [`Hyper::flags`]: the loss scale follows the gradients.
pub const SCALES_LOSS: u32 = 1;
/// Bit of [`Hyper::flags`]: an optimiser step follows.
pub const STEPS: u32 = 2;
/// Bit of [`Hyper::flags`]: the step is Adam's, or one with a further bit for that is.
pub const ADAM: u32 = 4;
/// Bit of [`Hyper::flags`]: Nesterov's momentum.
pub const NESTEROV: u32 = 8;
/// Bit of [`Hyper::flags`]: weight decay is not part of the gradient.
pub const DECOUPLED: u32 = 16;
/// Bit of [`Hyper::flags`]: eps is added before the second moment is corrected.
pub const EPS_HAT: u32 = 32;

/// Bit of [`Hyper::flags`]: the largest second moment so far takes the place of the second moment.
pub const AMSGRAD: u32 = 64;
/// Bit of [`Hyper::flags`]: the step goes up the gradient.
pub const MAXIMIZE: u32 = 128;
/// Bit of [`Hyper::flags`]: the step is Lion's.
pub const LION: u32 = 256;
/// Bit of [`Hyper::flags`], besides [`ADAM`]: the step is NAdam's.
pub const NADAM: u32 = 512;
/// Bit of [`Hyper::flags`], besides [`ADAM`] and [`EPS_HAT`]: the step is RAdam's.
pub const RADAM: u32 = 1024;

/// Bit of [`Hyper::flags`]: the step is ADOPT's.
pub const ADOPT: u32 = 2048;
/// Bit of [`Hyper::flags`], besides [`ADOPT`]: elements are limited before the first moment takes them.
pub const CLIPS_UPDATE: u32 = 4096;

/// Bit of [`Hyper::flags`], besides [`ADAM`]: the step is SPAM's.
pub const SPAM: u32 = 8192;
/// Bit of [`Hyper::flags`]: the step is LARS'.
pub const LARS: u32 = 16_384;
/// Bit of [`Hyper::flags`]: the root of the mean square of each tensor's update is limited.
pub const LIMITS_RMS: u32 = 32_768;
/// Bit of [`Hyper::flags`]: that of its gradients over the roots of their second moments limits its learning rate.
pub const LIMITS_RATE: u32 = 65_536;
/// Bit of [`Hyper::flags`]: the update of each tensor has the length of its parameter.
pub const TRUST_RATIO: u32 = 131_072;
/// Bit of [`Hyper::flags`], besides [`TRUST_RATIO`]: its length is the sum of that of the gradient and that of its decay.
pub const NORMS_APART: u32 = 262_144;
/// The bits of [`Hyper::flags`] that ask for a ratio a tensor.
pub const RATIOS: u32 = LIMITS_RMS | LIMITS_RATE | TRUST_RATIO;

/// The constants of loss scaling and of an optimiser, see [`LossScale`](crate::LossScale) and
/// [`Optimizer`](crate::Optimizer).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct Hyper {
    /// Learning rate.
    pub lr: f32,
    /// Momentum, or the decay of the first moment.
    pub decay: f32,
    /// What of a gradient goes into the momentum after the first step, or into the first moment:
    /// 1 - dampening, or 1 - β₁.
    pub share: f32,
    /// β₂.
    pub second_decay: f32,
    /// 1 - β₂.
    pub second_share: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// 1 - 0.96^ψ, ψ being NAdam's momentum decay.
    pub momentum_share: f32,
    /// RAdam's ρ∞ / ((ρ∞ - 4) (ρ∞ - 2)).
    pub rectification: f32,
    /// Factor of the loss scale after `interval` finite steps.
    pub growth: f32,
    /// Factor of the loss scale after a step that was not finite.
    pub backoff: f32,
    /// See `growth`.
    pub interval: u32,
    /// [`SCALES_LOSS`], [`STEPS`], [`ADAM`], [`NESTEROV`], [`DECOUPLED`], [`EPS_HAT`], [`AMSGRAD`], [`MAXIMIZE`], [`LION`],
    /// [`NADAM`], [`RADAM`], [`ADOPT`], [`CLIPS_UPDATE`], [`SPAM`], [`LARS`], [`LIMITS_RMS`], [`LIMITS_RATE`], [`TRUST_RATIO`],
    /// [`NORMS_APART`].
    pub flags: u32,
    /// The largest root of a mean square, or the trust coefficient; of SPAM what a square may be of its second moment.
    pub limit: f32,
    /// Added to the length of an update before a parameter's is divided by it.
    pub limit_eps: f32,
    /// The largest trust ratio.
    pub limit_most: f32,
    /// Steps from one to the next in which SPAM forgets moments, 0 for never.
    pub reset_interval: u32,
    /// Steps in which its rate rises after that.
    pub reset_warmup: u32,
    /// Steps before it limits elements, at first and after each of those.
    pub limit_delay: u32,
}

/// Loss scale and steps so far, 64 bytes. A forward pass may bind the buffer and read the scale.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct Progress {
    /// What the next loss is multiplied by; 1 without loss scaling.
    pub scale: f32,
    /// 1 / `scale`, rounded.
    pub unscale: f32,
    /// Finite steps since the scale last changed.
    pub finite_steps: u32,
    /// Optimiser steps so far: skipped ones do not count.
    pub updates: u32,
    /// 1 where the last step moves parameters.
    pub moves: u32,
    /// What of a gradient goes into the momentum, or into the first moment, in the last step.
    pub share: f32,
    /// 1 / (1 - β₁ᵗ) in the last step t: the factor of the first moment. RAdam's has its rectification in it; NAdam's is
    /// μₜ₊₁ / (1 - μ₁ … μₜ₊₁).
    pub correction: f32,
    /// 1 / √(1 - β₂ᵗ) in the last step t; 0 where RAdam does not divide by the second moment.
    pub second_correction: f32,
    /// Steps skipped since the last one that was not.
    pub skips: u32,
    /// What gradients are multiplied by besides, where fewer micro-batches were summed than a step has: how many it has over how
    /// many were summed. 1 but within such a step.
    pub mean_correction: f32,
    /// NAdam's product of all μ so far.
    pub momentum_product: f32,
    /// NAdam's factor of the gradient in the last step, that of the first moment being `correction`.
    pub gradient_correction: f32,
    /// What the rule that leaves out steps found in the last one: the `REASON_` constants, [`GAVE_UP`](super::GAVE_UP) and
    /// [`LET_THROUGH`](super::LET_THROUGH); 0 for nothing.
    pub reasons: u32,
    /// Steps in a row in which it found something, the last one among them.
    pub strikes: u32,
    /// Steps that were left out for a spike so far.
    pub spikes: u32,
    /// Values that each series it watches has kept so far.
    pub watched: u32,
}

/// One chunk of a gradient with the tensors updated with it: places in elements of the slot's windows.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct FusedRow {
    /// First element of the gradient.
    pub start: u32,
    /// Number of elements in the low [`LEN_BITS`](super::LEN_BITS) bits, slot above.
    pub slot_len: u32,
    /// The same first element, counted in the tensor.
    pub first: u32,
    /// Segment of the tensor, the first one where it is cut into units.
    pub segment: u32,
    /// First element of the parameter or accumulator.
    pub parameter: u32,
    /// First element of the momentum or first moment.
    pub moment: u32,
    /// First element of the second moment.
    pub second_moment: u32,
    /// First element of the largest second moment.
    pub largest_moment: u32,
    /// First element of the parameter of 16 bits, where there is one.
    pub half: u32,
    /// Index of the tensor's [`FusedTensor`].
    pub tensor: u32,
}

/// How micro-batches make a step, of which some may be left out.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Counting {
    /// Micro-batches of a step.
    pub micro_batches: u32,
    /// Dispatches of the first one's sum, and of each further one's.
    pub sums: u32,
    /// Dispatches of a step.
    pub steps: u32,
    /// 1 where a step is made of what there is.
    pub ends: u32,
}

/// A chunk that is measured, and room for the sums of one.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct MeasuredRow {
    /// The chunk.
    pub row: FusedRow,
    /// Unused.
    pub pad: [u32; 2],
    /// The [`Partial`](super::Partial) of the updates of a chunk: that which has this row's place in the order of tensors.
    pub update: [u32; 4],
    /// That of its parameters.
    pub parameter: [u32; 4],
}

/// What all chunks of a tensor share. Element `e` of it belongs to segment `segment + (e / low) % kept
/// + (e / high) % outer * kept`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct FusedTensor {
    /// Factor of the learning rate.
    pub lr_scale: f32,
    /// Weight decay.
    pub weight_decay: f32,
    /// What an optimiser with a ratio a tensor multiplies its update by in the last step; 1 where it has none.
    pub ratio: f32,
    /// The first pair of its [`Partial`](super::Partial)s, of update and parameter; [`NONE`](super::NONE) where it has no ratio.
    pub pair: u32,
    /// Number of elements.
    pub elements: u32,
    /// Key of what rounds by chance, low word first.
    pub seed: [u32; 2],
    /// See above.
    pub low: u32,
    /// See above.
    pub kept: u32,
    /// See above.
    pub high: u32,
    /// See above.
    pub outer: u32,
}
