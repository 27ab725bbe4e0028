//! What is wrong with what was asked for, found before any device is.

/// A word that names no such setting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: required {required}, given `{}`", given.escape_debug())]
#[non_exhaustive]
pub struct WordError {
    /// What it should have named.
    pub what: &'static str,
    /// The words there are.
    pub required: &'static str,
    /// The word.
    pub given: String,
}

/// A [`Clip`](crate::Clip) that makes no sense.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ClipError {
    /// The threshold is negative or NaN.
    #[error("threshold: required 0 or more (infinity only measures), given {given}")]
    Threshold {
        /// The threshold.
        given: f64,
    },
    /// The unscale factor is not positive and finite.
    #[error("unscale factor: required above 0 and finite, given {given}")]
    Unscale {
        /// The factor.
        given: f64,
    },
    /// The eps is negative, infinite or NaN.
    #[error("eps: required 0 or more and finite, given {given}")]
    Eps {
        /// The eps.
        given: f64,
    },
    /// The p of the norm is not above 0.
    #[error("norm type: required p above 0, given {given}")]
    NormType {
        /// The p.
        given: f64,
    },
    /// A constant of an adaptive threshold is out of its range.
    #[error("adaptive threshold: required a {what} of {required}, given {given}")]
    Adapt {
        /// Which constant.
        what: &'static str,
        /// Its range.
        required: &'static str,
        /// Its value.
        given: f32,
    },
    /// A constant of loss scaling is out of its range.
    #[error("loss scaling: required a {what} of {required}, given {given}")]
    LossScale {
        /// Which constant.
        what: &'static str,
        /// Its range.
        required: &'static str,
        /// Its value.
        given: f32,
    },
    /// A constant of a rule that leaves out steps is out of its range.
    #[error("rule that leaves out steps, {what}: required {required}, given {given}")]
    Skip {
        /// Name of the constant.
        what: &'static str,
        /// Its range.
        required: &'static str,
        /// Its value.
        given: f64,
    },
    /// Fields that mean nothing together.
    #[error("{what}: required {required}")]
    Combination {
        /// What was asked for.
        what: &'static str,
        /// What it requires.
        required: &'static str,
    },
    /// A tensor that the clip cannot be applied to.
    #[error("tensor `{}`: required {required}, given {given}", tensor.escape_debug())]
    Tensor {
        /// Name of the tensor.
        tensor: String,
        /// What the clip needs of it.
        required: String,
        /// What it has.
        given: String,
    },
    /// Unscaling `f16` gradients in place loses what is small, and nobody asked for that.
    #[error(
        "tensor `{}`: required f32 or bf16 gradients to unscale in place ({}), given f16, which would lose small \
         ones; a step or an f32 accumulation unscales them without loss, `Clip::lossy_unscale` allows it all the same",
        tensor.escape_debug(),
        if *scaled { "loss scaling".to_owned() } else { format!("unscale factor {unscale}") }
    )]
    LossyUnscale {
        /// Name of the tensor.
        tensor: String,
        /// The unscale factor.
        unscale: f64,
        /// Whether a loss scale is divided by.
        scaled: bool,
    },
    /// Two groups have the same name and different thresholds.
    #[error(
        "group `{}`: required one threshold, given {first:?} and {second:?} (None is excluded)",
        name.escape_debug()
    )]
    Group {
        /// Name of the group.
        name: String,
        /// The threshold met first.
        first: Option<f64>,
        /// Another one.
        second: Option<f64>,
    },
    /// The state of an adaptive threshold is that of another clip.
    #[error("state: required one for {required}, given one for {given}")]
    State {
        /// What the clip needs.
        required: String,
        /// What the state is for.
        given: String,
    },
    /// There are more or fewer tensors than were prepared.
    #[error("tensors: required {required}, as prepared, given {given}")]
    Count {
        /// Tensors prepared.
        required: usize,
        /// Tensors given.
        given: usize,
    },
    /// The number of thresholds is not the number of limits.
    #[error("thresholds: required one for each of the {required} limits, given {given}")]
    Thresholds {
        /// Limits of the pass: one a segment, for units one a tensor, for rows one.
        required: usize,
        /// Thresholds given.
        given: usize,
    },
}

/// An [`Optimizer`](crate::Optimizer) that makes no sense.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum OptimizerError {
    /// A constant is out of its range.
    #[error("optimiser: required a {what} of {required}, given {given}")]
    Constant {
        /// Which constant.
        what: &'static str,
        /// Its range.
        required: &'static str,
        /// Its value.
        given: f64,
    },
    /// Constants that mean nothing together.
    #[error("optimiser: {what} requires {required}")]
    Combination {
        /// What was asked for.
        what: &'static str,
        /// What it requires.
        required: &'static str,
    },
}

/// A [`Schedule`](crate::Schedule) that makes no sense.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// An argument is out of its range.
    #[error("schedule, {what}: required {required}, given {given}")]
    Argument {
        /// Which argument.
        what: &'static str,
        /// Its range.
        required: &'static str,
        /// Its value.
        given: f64,
    },
}

/// What can fail in a step on the CPU path, before anything is written.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// The clip is wrong, or a tensor lacks what it needs.
    #[error(transparent)]
    Clip(#[from] ClipError),
    /// The optimiser is wrong.
    #[error(transparent)]
    Optimizer(#[from] OptimizerError),
}
