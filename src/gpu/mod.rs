//! The GPU path: pipelines of a device, prepared passes, and what comes back from them.

mod accumulator;
#[cfg(not(target_arch = "wasm32"))]
mod blocking;
mod buffers;
mod clipper;
mod coalescer;
mod decision;
mod exchange;
mod forms;
mod gate;
#[cfg(feature = "checkpoint")]
mod halves;
mod make;
mod mapped;
mod memory;
mod moments;
mod options;
mod pass;
mod pipelines;
mod placements;
mod prepare;
mod private;
mod purpose;
mod ratios;
mod readback;
mod records;
#[cfg(feature = "checkpoint")]
mod saved;
mod scope;
mod shares_pass;
mod stepper;
mod trainer;
mod trusted;
mod workspace;

pub use accumulator::{Accumulator, ClippedAccumulator};
pub use clipper::Clipper;
pub use coalescer::Coalescer;
pub use mapped::ReadBack;
pub use moments::Moment;
pub use options::ClipperOptions;
pub use pass::Pass;
pub use private::PrivateSum;
#[cfg(feature = "checkpoint")]
pub use saved::Saving;
pub use stepper::Stepper;
pub use trainer::Trainer;

// For `Session`, which blocks.
#[cfg(all(feature = "session", not(target_arch = "wasm32")))]
pub(crate) use buffers::filled_in;
#[cfg(all(feature = "session", not(target_arch = "wasm32")))]
pub(crate) use mapped::Place;
#[cfg(all(feature = "session", not(target_arch = "wasm32")))]
pub(crate) use scope::{caught, waited};
