//! Errors, one type an operation. Each says which tensor, what was required and what was given.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use crate::tensor::DType;

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

/// A set of gradients that cannot be cut into chunks, windows and dispatches.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The tensor does not start where its element type may.
    #[error(
        "tensor `{}`: required an offset that is a multiple of {required} ({dtype}), given {given}",
        tensor.escape_debug()
    )]
    Unaligned {
        /// Name of the tensor.
        tensor: String,
        /// Its element type.
        dtype: DType,
        /// Bytes that the offset must be a multiple of.
        required: u64,
        /// Its offset in bytes.
        given: u64,
    },
    /// The tensor ends after its buffer.
    #[error(
        "tensor `{}`: required a buffer of at least {required} bytes, given one of {given}",
        tensor.escape_debug()
    )]
    OutOfRange {
        /// Name of the tensor.
        tensor: String,
        /// Where the tensor ends, rounded up to a whole word.
        required: u128,
        /// Size of the buffer in bytes.
        given: u64,
    },
    /// Two tensors share bytes of one buffer.
    #[error(
        "tensors `{}` and `{}`: required disjoint ranges, both hold byte {at} of the buffer",
        first.escape_debug(),
        second.escape_debug()
    )]
    Overlap {
        /// The tensor that begins first.
        first: String,
        /// The other tensor.
        second: String,
        /// Offset of the first shared byte.
        at: u64,
    },
    /// The tensor's element type is one that adapters have no kernels for.
    #[error(
        "tensor `{}`: required f32, f16 or bf16 on an adapter, given {given}; the CPU path takes it", tensor.escape_debug()
    )]
    DType {
        /// Name of the tensor.
        tensor: String,
        /// Its element type.
        given: DType,
    },
    /// An option is out of its range.
    #[error("{option}: required {required}, given {given}")]
    Option {
        /// Which option.
        option: &'static str,
        /// Its range.
        required: &'static str,
        /// Its value.
        given: u64,
    },
    /// A limit of the device is too small.
    #[error("device limit {limit}: required at least {required}, given {given}")]
    Limit {
        /// Name of the field of [`wgpu::Limits`].
        limit: &'static str,
        /// What is needed.
        required: u64,
        /// What the device has.
        given: u64,
    },
    /// What belongs to a gradient does not fit it.
    #[error("tensor `{}`: required {required} {what}, given {given}", tensor.escape_debug())]
    Operands {
        /// Name of the tensor.
        tensor: String,
        /// What there is a wrong number of.
        what: &'static str,
        /// How many there have to be.
        required: u64,
        /// How many there are.
        given: u64,
    },
    /// More chunks, tensors or segments than 32-bit indices or one binding can hold.
    #[error("{what}: required at most {required}, given {given}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// The most that is possible on this device.
        required: u64,
        /// How many there are.
        given: u64,
    },
}

/// What wgpu refused, with its own error as the source: a [`wgpu::Error`] where it came from an error scope.
///
/// ```no_run
/// # fn run(clipper: &gradclip::Clipper, grads: &[gradclip::Grad], clip: &gradclip::Clip) {
/// use std::error::Error;
///
/// let Err(error) = clipper.prepare(grads, clip) else { return };
/// if let Some(gradclip::wgpu::Error::OutOfMemory { .. }) = error.source().and_then(|e| e.downcast_ref()) {
///     // … a smaller batch …
/// }
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct DeviceError {
    what: &'static str,
    source: Arc<dyn Error + Send + Sync>,
}

impl DeviceError {
    pub(crate) fn new(what: &'static str, source: impl Error + Send + Sync + 'static) -> DeviceError {
        DeviceError { what, source: Arc::new(source) }
    }

    /// What was being done.
    pub fn what(&self) -> &'static str {
        self.what
    }
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.source)
    }
}

impl Error for DeviceError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}

/// Equal where they say the same: wgpu's errors do not compare.
impl PartialEq for DeviceError {
    fn eq(&self, other: &DeviceError) -> bool {
        self.what == other.what && self.source.to_string() == other.source.to_string()
    }
}

impl Eq for DeviceError {}

/// Why [`Clipper::prepare`](crate::Clipper::prepare) refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PrepareError {
    /// The clip itself is wrong.
    #[error(transparent)]
    Clip(#[from] ClipError),
    /// The gradients do not fit the device or each other.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The optimiser is wrong.
    #[error(transparent)]
    Optimizer(#[from] OptimizerError),
    /// The tensor's buffer cannot be bound as storage.
    #[error("tensor `{}`: required a buffer with usage STORAGE, given {given:?}", tensor.escape_debug())]
    Usage {
        /// Name of the tensor.
        tensor: String,
        /// The buffer's usages.
        given: wgpu::BufferUsages,
    },
    /// The tensor does not fit one buffer of the device.
    #[error(
        "tensor `{}`: required a buffer of {required} bytes, the device allows {given}",
        tensor.escape_debug()
    )]
    BufferSize {
        /// Name of the tensor.
        tensor: String,
        /// Bytes of the tensor.
        required: u64,
        /// The device's `max_buffer_size`.
        given: u64,
    },
    /// The device refused a buffer, a shader or a bind group, or ran out of memory. Never in browsers, which tell errors later: there
    /// they go to the device's own handler ([`wgpu::Device::on_uncaptured_error`]).
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// Why a result did not reach the host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadBackError {
    /// Every place of the ring is waiting for the GPU or for its future to be taken.
    #[error("read-back ring: required a free place, all {capacity} are in flight")]
    RingFull {
        /// Places of the ring.
        capacity: usize,
    },
    /// Nothing has been decided yet: the apply half of the pass, which writes the results, was never
    /// recorded before, or has not run.
    #[error("read-back: required an apply half before it (`record`, `record_apply`), none has run")]
    Undecided,
    /// The encoder was dropped without being submitted, the submit failed (a buffer was destroyed,
    /// say), or the device was lost before the copy.
    #[error("read-back: the commands that it was recorded with never ran")]
    NotSubmitted,
    /// The result could not be waited for or mapped: the device was lost or destroyed.
    #[error("read-back: {0}")]
    Device(#[source] DeviceError),
}

/// What can fail in a [`Session`](crate::Session).
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The clip itself is wrong.
    #[error(transparent)]
    Clip(#[from] ClipError),
    /// There is no adapter of the kind asked for.
    #[error("no adapter matches `{wanted}`; found: {found}")]
    NoAdapter {
        /// What was asked for.
        wanted: String,
        /// Adapters that exist, as backend/name, or a word that there are none.
        found: String,
    },
    /// The adapter gave no device.
    #[error("device of {adapter}: {source}")]
    NoDevice {
        /// The adapter, as backend/name.
        adapter: String,
        /// Why not.
        source: DeviceError,
    },
    /// The device cannot clip.
    #[error("device of {adapter}: {source}")]
    Unfit {
        /// The adapter, as backend/name.
        adapter: String,
        /// What it lacks.
        source: PlanError,
    },
    /// The gradients could not be prepared.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// The result could not be read.
    #[error(transparent)]
    ReadBack(#[from] ReadBackError),
}
