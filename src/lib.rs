//! Gradient clipping.
pub mod clip;
pub mod cpu;
pub mod error;
pub mod gpu;
pub mod grad;
mod kernels;
pub mod layout;
pub mod plan;
pub mod report;
#[cfg(not(target_arch = "wasm32"))]
pub mod session;
pub use clip::{Clip, NonFinite, NormType, Scope};
pub use error::{ClipError, PlanError, PrepareError, ReadBackError, SessionError};
pub use gpu::{Clipper, ClipperOptions, Pass, ReadBack};
pub use grad::{DType, Grad};
pub use report::{Report, SegmentReport, TensorReport};
#[cfg(not(target_arch = "wasm32"))]
pub use session::{Session, Target};
pub use {ndarray, wgpu};
