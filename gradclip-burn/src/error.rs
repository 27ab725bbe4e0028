//! Why gradients were not clipped.

use burn::optim::GradientsParams;
use burn::store::RecordError;
use gradclip::{ClipError, OptimizerError, PlanError, PrepareError, ReadBackError};

/// What can fail. Wherever [`Clipper::clip`](crate::Clipper::clip) or [`Stepper::step`](crate::Stepper::step) fails, every
/// gradient is registered as before, and every tensor has the values it had.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor of another backend or another device.
    #[error(
        "parameter `{parameter}`, {what}: required a tensor on the wgpu device {required}, given {given}"
    )]
    Device {
        /// Path of the parameter.
        parameter: String,
        /// Its gradient or its value.
        what: &'static str,
        /// The clipper's device, as Burn names it.
        required: String,
        /// The tensor's device, or what Burn said of it.
        given: String,
    },
    /// A device that does not run on wgpu.
    #[error("device: required one on wgpu, given {given}")]
    NotWgpu {
        /// The device, and what Burn said of it.
        given: String,
    },
    /// An element type that cannot be clipped.
    #[error("parameter `{parameter}`, {what}: required {required}, given {given}")]
    DType {
        /// Path of the parameter.
        parameter: String,
        /// Its gradient or its value.
        what: &'static str,
        /// The types that can be.
        required: &'static str,
        /// Burn's name of the type.
        given: String,
    },
    /// A gradient in another shape than its parameter.
    #[error("parameter `{parameter}`: required a gradient of shape {required:?}, given {given:?}")]
    Shape {
        /// Path of the parameter.
        parameter: String,
        /// The parameter's shape.
        required: Vec<usize>,
        /// The gradient's shape.
        given: Vec<usize>,
    },
    /// Units of a parameter that nobody knows.
    #[error(
        "parameter `{parameter}` of `{module}`: required the axis that counts its outputs, given {given}"
    )]
    Units {
        /// Path of the parameter.
        parameter: String,
        /// The struct that it is a field of.
        module: String,
        /// What the clip or the rule says.
        given: String,
    },
    /// Burn could not say where a tensor lies: what should have written it failed, for one.
    #[error("parameter `{parameter}`, {what}: required memory on the device, Burn reports: {message}")]
    Memory {
        /// Path of the parameter.
        parameter: String,
        /// Its gradient or its value.
        what: &'static str,
        /// What Burn said.
        message: String,
    },
    /// Burn could not submit what it had queued.
    #[error("flushing Burn's queue: {message}")]
    Flush {
        /// What Burn said.
        message: String,
    },
    /// A report was asked for, or a history, before anything was clipped.
    #[error("{what}: required at least one clip before it")]
    NothingClipped {
        /// What was asked for.
        what: &'static str,
    },
    /// A record of another optimiser, or a damaged one.
    #[error("record: {message}")]
    Record {
        /// What was required and what was given.
        message: String,
    },
    /// A record that Burn could not read or write.
    #[error(transparent)]
    Store(#[from] RecordError),
    /// Constants of an optimiser out of their range.
    #[error(transparent)]
    Optimizer(#[from] OptimizerError),
    /// The clip itself is wrong.
    #[error(transparent)]
    Clip(#[from] ClipError),
    /// The device cannot run the kernels.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The gradients do not fit the clip or the device.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// A result did not reach the host.
    #[error(transparent)]
    ReadBack(#[from] ReadBackError),
}

/// A step that was not made, with all that it was given, unchanged: clip and step otherwise, or give up.
///
/// Becomes an [`Error`] where a `?` asks for one.
#[derive(Debug)]
pub struct Refused<M> {
    /// The model, with the values it had.
    pub model: M,
    /// The gradients, as they were.
    pub grads: GradientsParams,
    /// Why.
    pub error: Error,
}

impl<M> std::fmt::Display for Refused<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.error.fmt(f)
    }
}

impl<M: std::fmt::Debug> std::error::Error for Refused<M> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl<M> From<Box<Refused<M>>> for Error {
    fn from(refused: Box<Refused<M>>) -> Error {
        refused.error
    }
}
