//! Why a command did not do what it was asked, and the exit code of each reason.

use std::fmt;

use crate::text;
#[cfg(not(target_arch = "wasm32"))]
use gradclip::SessionError;
use gradclip::{ClipError, PrepareError, ReadBackError, StepError};

#[derive(Debug)]
pub(crate) enum Failure {
    /// A check ran and failed.
    Check(String),
    /// Wrong usage, or a file that cannot be read or written.
    Usage(String),
    /// Non-finite gradients where they are an error.
    NonFinite(String),
    /// No such device, or one that failed.
    Device(String),
}

impl Failure {
    pub(crate) fn code(&self) -> u8 {
        match self {
            Failure::Check(_) => 1,
            Failure::Usage(_) => 2,
            Failure::NonFinite(_) => 3,
            Failure::Device(_) => 4,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Check(message)
            | Failure::Usage(message)
            | Failure::NonFinite(message)
            | Failure::Device(message) => f.write_str(message),
        }
    }
}

impl From<ClipError> for Failure {
    fn from(error: ClipError) -> Failure {
        match error {
            ClipError::LossyUnscale { tensor, .. } => Failure::Usage(format!(
                "--unscale: tensor `{}` is F16, of which small elements would be lost in place; --out-type f32 writes F32 \
                 and loses nothing, --lossy-unscale allows it all the same",
                text::escaped(&tensor)
            )),
            other => Failure::Usage(other.to_string()),
        }
    }
}

impl From<PrepareError> for Failure {
    fn from(error: PrepareError) -> Failure {
        match error {
            PrepareError::Clip(error) => error.into(),
            other => Failure::Device(other.to_string()),
        }
    }
}

impl From<StepError> for Failure {
    fn from(error: StepError) -> Failure {
        Failure::Usage(error.to_string())
    }
}

impl From<ReadBackError> for Failure {
    fn from(error: ReadBackError) -> Failure {
        Failure::Device(error.to_string())
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Failure {
        match error {
            SessionError::Clip(error) => error.into(),
            SessionError::Prepare(error) => error.into(),
            SessionError::NoAdapter { ref found, .. } if found == "no adapter at all" => {
                Failure::Device(format!("--device: {error}; {}", crate::args::device::GET_A_DRIVER))
            }
            SessionError::NoAdapter { .. } => Failure::Device(format!("--device: {error}")),
            other => Failure::Device(other.to_string()),
        }
    }
}

impl From<gradclip_verify::Failure> for Failure {
    fn from(failure: gradclip_verify::Failure) -> Failure {
        use gradclip_verify::Failure as Cause;
        match failure {
            Cause::Clip(error) => error.into(),
            Cause::Prepare(error) => error.into(),
            Cause::Step(error) => error.into(),
            Cause::ReadBack(error) => error.into(),
            other => Failure::Device(other.to_string()),
        }
    }
}
