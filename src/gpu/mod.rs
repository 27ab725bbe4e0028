//! The GPU path: pipelines of a device, prepared passes, and what comes back from them.

mod accumulator;
mod clipper;
mod decision;
mod forms;
mod memory;
mod pass;
mod pipelines;
mod readback;
mod scope;
mod stepper;
mod trusted;
mod workspace;

pub use accumulator::Accumulator;
pub use clipper::{Clipper, ClipperOptions};
pub use memory::SavedHistory;
pub use pass::Pass;
pub use readback::ReadBack;
pub use stepper::{Moment, Stepper};

// For `Session`, which blocks.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use scope::caught;
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use workspace::filled_in;
