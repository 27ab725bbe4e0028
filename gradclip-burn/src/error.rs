//! Why gradients were not clipped.

use gradclip::{ClipError, PlanError, PrepareError, ReadBackError};

/// What can fail. Wherever [`Clipper::clip`](crate::Clipper::clip) fails, every gradient is registered as before,
/// with the values it had.
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
    #[error("parameter `{parameter}`, {what}: required f32, f16 or bf16, given {given}")]
    DType {
        /// Path of the parameter.
        parameter: String,
        /// Its gradient or its value.
        what: &'static str,
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
