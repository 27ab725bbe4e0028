//! What the page computes: two runs of a small net on the visitor's GPU, with clipping and without, checks and
//! measurements of the library there, and clips of files.
//!
//! Everything runs in workers of the page, so that the page itself never waits. Shaders of the net are in `shaders/`, what is
//! seen in `page/`; `build.sh` puts all together.

pub mod bench;
mod error;
pub mod gpu;
pub mod model;
pub mod net;
mod run;
mod settings;
mod text;
mod training;
pub mod verify;
#[cfg(target_arch = "wasm32")]
pub mod worker;

pub use error::WebError;
pub use run::{MOST_STEPS, Run, Saved, Step};
pub use settings::{Rule, Settings};
pub use text::Text;
pub use training::Training;
