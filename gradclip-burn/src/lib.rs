//! A true global gradient norm for [Burn](burn) on wgpu, and everything else that [`gradclip`] does: one
//! line between `backward` and `optimizer.step`, in place, without a host read.
//!
//! Burn's own gradient clipping limits the norm of every tensor by itself. [`Clipper::clip`] limits what
//! its [`Clip`] says: the norm of the whole set, of groups, of tensors, relative to the parameters, with
//! thresholds that follow the norms.
//!
//! ```no_run
//! use burn::nn::{Linear, LinearConfig};
//! use burn::optim::{AdamConfig, GradientsParams};
//! use burn::tensor::{Device, Distribution, Tensor};
//! use gradclip_burn::{Clip, Clipper};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (device, setup) = Device::wgpu_options().init_with_setup()?;
//! let device = device.autodiff();
//! let clipper = Clipper::new(&device, &setup, Clip::global_norm(1.0))?;
//!
//! let mut model: Linear = LinearConfig::new(4, 2).init(&device);
//! let mut optimizer = AdamConfig::new().init();
//! for _step in 0..100 {
//!     let input = Tensor::<2>::random([8, 4], Distribution::Default, &device);
//!     let loss = model.forward(input).powi_scalar(2).mean();
//!     let mut grads = GradientsParams::from_grads(loss.backward(), &model);
//!     clipper.clip(&model, &mut grads)?;
//!     model = optimizer.step(1e-3, model, grads);
//!     while let Some(Ok(report)) = clipper.poll() {
//!         println!("step {}: norm {:?}", report.step, report.norm());
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # How it goes together
//!
//! Burn batches commands and submits them to the queue of its wgpu device. [`Clipper::clip`] asks where
//! the gradients lie, has Burn submit what leads to them, and submits a prepared [`Pass`] of gradclip's to
//! the same queue: it runs after the backward pass and before the optimiser, and nothing waits. A gradient
//! that others still see, or whose elements do not lie one after another, is copied first.
//!
//! # Threads
//!
//! Burn has a queue of commands a thread. Gradients may come from any threads: Burn submits the queue of
//! the thread that made each of them before the clip. Between threads the usual rule holds: whoever used a
//! gradient last has finished doing so before `clip` is called (joined, or sent it over a channel).

mod clipper;
mod collect;
mod engine;
mod error;
mod memory;
mod passes;
mod prepared;
mod record;
mod shared;
mod stepper;
mod take;
mod units;

pub use clipper::Clipper;
pub use error::{Error, Refused};
pub use gradclip::{
    Adam, Adapt, Adopt, Axes, Clip, ClipError, ClipperOptions, DType, Group, History, Lars, Lion, LossScale,
    NAdam, NonFinite, NormType, Optimizer, OptimizerError, PlanError, PrepareError, RAdam, Reaction,
    ReadBack, ReadBackError, Report, Rule, Schedule, Scope, SegmentReport, Sgd, Skip, Spam, TensorReport,
    TrustRatio, Units, UpdateLimit,
};
pub use passes::{Counts, Rates};
pub use stepper::Stepper;
pub use units::{Parameter, output_axis};
pub use {burn, gradclip};
