//! Why a check could not be made.

use gradclip::{ClipError, PrepareError, PrivateError, ReadBackError, StepError};

/// Why a check could not be made: no finding about numbers, but something that the library or a device refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The library refused gradients or settings.
    #[error(transparent)]
    Clip(#[from] ClipError),
    /// A device did not take what was to be prepared.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// A step was refused.
    #[error(transparent)]
    Step(#[from] StepError),
    /// A private sum was refused.
    #[error(transparent)]
    Private(#[from] PrivateError),
    /// A result did not come back.
    #[error(transparent)]
    ReadBack(#[from] ReadBackError),
    /// A device failed, which its name and wgpu's words tell.
    #[error("{0}")]
    Device(String),
}
