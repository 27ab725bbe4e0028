//! What fails with a device.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use super::asked::{ClipError, OptimizerError};
use super::plan::PlanError;
use super::private::PrivateError;

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
    source: Arc<Source>,
}

#[cfg(not(target_arch = "wasm32"))]
type Source = dyn Error + Send + Sync;
/// wgpu's errors stay in their thread there, as all of wgpu does.
#[cfg(target_arch = "wasm32")]
type Source = dyn Error;

impl DeviceError {
    pub(crate) fn new(
        what: &'static str,
        source: impl Error + wgpu::WasmNotSendSync + 'static,
    ) -> DeviceError {
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
    /// The private sum is wrong.
    #[error(transparent)]
    Private(#[from] PrivateError),
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
    /// The device refused a buffer, a shader or a bind group, or ran out of memory.
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
