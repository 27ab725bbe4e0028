//! Errors, one type an operation. Each says which tensor, what was required and what was given.

mod asked;
#[cfg(feature = "checkpoint")]
mod checkpoint;
mod device;
mod plan;
mod private;

pub use asked::{ClipError, OptimizerError, ScheduleError, StepError, WordError};
#[cfg(feature = "checkpoint")]
pub use checkpoint::CheckpointError;
pub use device::{DeviceError, PrepareError, ReadBackError, SessionError};
pub use plan::PlanError;
pub use private::PrivateError;
