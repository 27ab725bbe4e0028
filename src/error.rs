//! Errors, one type an operation. Each says which tensor, what was required and what was given.

mod asked;
mod device;
mod plan;

pub use asked::{ClipError, OptimizerError, ScheduleError, StepError, WordError};
pub use device::{DeviceError, PrepareError, ReadBackError, SessionError};
pub use plan::PlanError;
