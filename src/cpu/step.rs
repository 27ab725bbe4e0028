//! Clip and optimiser's step on slices: the twin of [`Stepper`](crate::Stepper).

mod moments;
mod prepared;
#[cfg(feature = "checkpoint")]
mod saved;
mod tensor;
mod trainer;

use crate::clip::Clip;
use crate::error::StepError;
use crate::history::History;
use crate::optimizer::Optimizer;
use crate::report::Report;

use super::block::Values;
use super::parameter::ParameterMut;

pub use moments::Moments;
pub use prepared::{PreparedStep, prepare_step};
pub use tensor::StepMut;
pub use trainer::{Trainer, prepare_training, prepare_training_skipping};

/// Clips and makes one step of `optimizer`: gradients are read twice and never written. `history` and
/// `moments` are kept from step to step and begin as their defaults. Where a gradient is not finite
/// under [`NonFinite::Skip`](crate::NonFinite::Skip), no parameter and no moment moves and the step does
/// not count. Tensors that come again are cheaper with [`prepare_step()`].
///
/// ```
/// use gradclip::{Clip, History, Sgd, cpu::{self, Moments, StepMut}};
///
/// let (mut p, g) = ([0.0f32, 0.0], [30.0f32, 40.0]);
/// let (mut history, mut moments) = (History::default(), Moments::default());
/// let mut steps = [StepMut::new("w", &g[..], &mut p)];
/// let sgd = Sgd::new(0.5);
/// let report = cpu::step(&mut steps, &Clip::global_norm(25.0), sgd, &mut history, &mut moments)?;
/// assert_eq!(report.norm(), Some(50.0));
/// assert_eq!((p, g), ([-7.5, -10.0], [30.0, 40.0]));
/// # Ok::<(), gradclip::StepError>(())
/// ```
///
/// # Errors
///
/// A clip or optimiser that does not validate, a parameter of another length than its gradient, tensors
/// without what the clip needs, a history or moments of other tensors. Nothing is written then.
pub fn step(
    steps: &mut [StepMut<'_>],
    clip: &Clip,
    optimizer: impl Into<Optimizer>,
    history: &mut History,
    moments: &mut Moments,
) -> Result<Report, StepError> {
    let mut prepared = PreparedStep::without_moments(steps, clip, optimizer.into())?;
    let gradients: Vec<Values<'_>> = steps.iter().map(|s| s.operands.gradient).collect();
    let rows: Vec<Option<&[u32]>> = steps.iter().map(|s| s.operands.rows).collect();
    let mut targets: Vec<ParameterMut<'_>> =
        steps.iter_mut().map(|s| s.operands.target.reborrowed()).collect();
    Ok(prepared.step_for((history, moments), &gradients, &mut targets, &rows)?)
}
