//! Gradient clipping on the GPU for any wgpu program.
//!
//! WGSL shaders reduce the norm of hundreds of gradient tensors at once and scale them in place;
//! the host never waits. The norm is summed in integers, so it is right over all finite `f32` and
//! has the same bits on every adapter and on the CPU path, however the tensors are placed. What
//! does not exceed the threshold keeps every bit and costs the reading of the gradients alone.
//!
//! The [`guide`] has a page a question: choosing a threshold, coming from PyTorch, Optax or Keras, mixed precision,
//! groups and optimisers, arenas, reports, web pages.
//!
//! # The flow
//!
//! A *segment* is whatever shares one coefficient: the whole set, a group, a tensor, a unit of one.
//! Clipping is one pipeline over segments:
//!
//! ```text
//! gradients -> plan -> reduce: chunk -> tensor -> segment -> threshold -> coefficient
//!           -> apply in place, or an optimiser's step, or a sum of micro-batches -> report
//! ```
//!
//! [`Grad`] says where a tensor lies, [`Clip`] what to do. [`Clipper`] holds the compiled kernels
//! of a device; [`Clipper::prepare`] gives a [`Pass`] that is recorded every step. A [`Stepper`] ends
//! in an [`Optimizer`]'s step, an [`Accumulator`] in a sum, a [`PrivateSum`] in one over examples with noise, instead of in gradients; a [`Trainer`] is both for a training loop. A [`Coalescer`] makes a sparse
//! gradient, such as an embedding's, one as any other. [`cpu`] has the same
//! stages on slices and ndarray views. `Session` is one call for those with no wgpu of their
//! own.
//!
//! # Who submits, who waits, who allocates
//!
//! | call | submits | waits | allocates on the device |
//! |---|---|---|---|
//! | [`Clipper::new`] | no | no | no |
//! | [`Clipper::prepare`] | no | not for the device; for the driver's compiler, the first time that a kernel is needed | scratch, bind groups |
//! | [`Clipper::prepare_step`], [`Clipper::prepare_accumulation`] | no | no (likewise) | scratch, bind groups, state |
//! | [`Clipper::prepare_coalescing`] | no | no (likewise) | the sum, lists, bind groups |
//! | [`Coalescer::record`] | no | no | no |
//! | [`Pass::record`], [`Pass::record_norm`], [`Pass::record_apply`] | no | no | no |
//! | [`Stepper::record_step`], [`Accumulator::record_first`], [`Accumulator::record_next`] | no | no | no |
//! | [`Stepper::set_lr`], [`Stepper::set_optimizer`] | no (takes effect at the next submit) | no | staging, by wgpu |
//! | [`Clipper::prepare_training`] | no | no (likewise) | scratch, bind groups, state, sums |
//! | [`Trainer::record`], [`Trainer::finish`] | no | no | no |
//! | `Trainer::save` | no | no | buffers to read it from |
//! | `Trainer::load` | only where 16-bit parameters share words | no (likewise) | staging, by wgpu |
//! | [`Clipper::prepare_private`] | no | no (likewise) | scratch, bind groups, sums |
//! | [`PrivateSum::record`], [`PrivateSum::release`] | no | no | no |
//! | [`Pass::read_back`] | no | no | no |
//! | [`Pass::set_threshold`], [`Pass::set_total`], [`Pass::set_unscale`], [`Pass::set_rows`], [`Pass::restore_history`] | no (takes effect at the next submit) | no | staging, by wgpu |
//! | awaiting a [`ReadBack`], [`ReadBack::try_take`] | no | no (ready after the device was polled) | no |
//! | [`Telemetry::record`], [`Telemetry::poll`] | no | no | no |
//! | [`Pass::save_history`] | no | no | a buffer to read it from |
//! | `ReadBack::wait` | no | **yes** | no |
//! | `Session::open`, `Session::clip` | yes | **yes** | yes |
//!
//! Calls that wait for the driver's compiler have an asynchronous form, [`Clipper::prepare_async`] and so on, which is the only one in
//! WebAssembly: [`guide::browser`].
//!
//! # Numbers
//!
//! A norm of type 1, 2 or infinity is within 0.65 ulp of exact, for any number of elements of any
//! finite magnitude: [`numbers`] defines the sum and derives the bound.

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(feature = "checkpoint")]
mod checkpoint;
mod clip;
mod combine;
pub mod cpu;
mod error;
pub mod exchange;
mod gpu;
mod grad;
#[cfg(any(doc, doctest))]
pub mod guide;
mod history;
mod kernels;
#[doc(hidden)]
pub mod layout;
mod norm;
pub mod numbers;
mod optimizer;
#[doc(hidden)]
pub mod plan;
mod private;
mod real;
pub mod records;
mod report;
mod schedule;
mod segments;
#[cfg(all(feature = "session", not(target_arch = "wasm32")))]
mod session;
mod telemetry;
mod tensor;

#[cfg(feature = "checkpoint")]
pub use checkpoint::Checkpoint;
pub use clip::{
    Adapt, Aggc, Axes, Clip, GiveUp, LossScale, NoisyQuantile, NonFinite, NormType, Reaction, Remembers,
    Rule, Scope, Skip, Units,
};
#[cfg(feature = "checkpoint")]
pub use error::CheckpointError;
pub use error::{
    ClipError, DeviceError, OptimizerError, PlanError, PrepareError, PrivateError, ReadBackError,
    ScheduleError, SessionError, StepError, WordError,
};
#[cfg(feature = "checkpoint")]
pub use gpu::Saving;
pub use gpu::{
    Accumulator, ClippedAccumulator, Clipper, ClipperOptions, Coalescer, Moment, Pass, PrivateSum, ReadBack,
    Stepper, Trainer,
};
pub use grad::{Grad, SparseGrad};
pub use history::History;
#[doc(hidden)]
pub use kernels::listing;
pub use optimizer::{Adam, Adopt, Lars, Lion, NAdam, Optimizer, RAdam, Sgd, Spam, TrustRatio, UpdateLimit};
pub use plan::Placement;
pub use private::Private;
pub use report::{Report, SegmentReport, SkipReport, TensorReport};
pub use schedule::Schedule;
#[cfg(all(feature = "session", not(target_arch = "wasm32")))]
pub use session::{Session, Target, adapter_name, adapters, is_software};
pub use telemetry::Telemetry;
pub use tensor::{DType, Group};

#[cfg(feature = "ndarray")]
pub use ndarray;
pub use wgpu;
