//! The GPU path: pipelines of a device, prepared passes, and what comes back from them.

mod clipper;
mod memory;
mod pass;
mod pipelines;
mod readback;
mod scope;
mod workspace;

pub use clipper::{Clipper, ClipperOptions};
pub use memory::SavedHistory;
pub use pass::Pass;
pub use readback::ReadBack;

pub(crate) use scope::caught;
pub(crate) use workspace::filled;
