//! Clip and optimiser's step on slices: the twin of [`Stepper`](crate::Stepper).

use std::sync::Arc;

use crate::clip::{Clip, LossScale};
use crate::error::{ClipError, StepError};
use crate::history::History;
use crate::optimizer::{Optimizer, at_least_0};
use crate::report::Report;
use crate::segments::Segments;
use crate::tensor::{Group, TensorInfo};

use super::advance;
use super::block::Values;
use super::fused::{self, Joined};
use super::grads::Slice;
use super::trace::decided;
use super::update::{Action, Rates};

/// One parameter with its gradient, which is only read.
#[derive(Debug)]
pub struct StepMut<'a> {
    joined: Joined<'a>,
    lr_scale: f64,
    weight_decay: Option<f64>,
}

impl<'a> StepMut<'a> {
    /// A parameter and a gradient of as many elements: `f32`, `f16` or `bf16`.
    pub fn new(
        name: impl Into<Arc<str>>,
        gradient: impl Into<Slice<'a>>,
        parameter: &'a mut [f32],
    ) -> StepMut<'a> {
        let joined = Joined::new(name.into(), gradient.into().data, parameter);
        StepMut { joined, lr_scale: 1.0, weight_decay: None }
    }

    /// Sets the shape, row-major, for scopes that cut tensors into units or rows.
    #[must_use]
    pub fn shape(mut self, shape: &[u64]) -> StepMut<'a> {
        self.joined.shape = Some(shape.into());
        self
    }

    /// Puts the tensor into a group.
    #[must_use]
    pub fn group(mut self, group: &Group) -> StepMut<'a> {
        self.joined.group = Some(group.clone());
        self
    }

    /// Sets a factor of the learning rate for this tensor. 1 unless set.
    #[must_use]
    pub fn lr_scale(self, factor: f64) -> StepMut<'a> {
        StepMut { lr_scale: factor, ..self }
    }

    /// Sets a weight decay for this tensor. That of the optimiser unless set.
    #[must_use]
    pub fn weight_decay(self, weight_decay: f64) -> StepMut<'a> {
        StepMut { weight_decay: Some(weight_decay), ..self }
    }

    fn check(&self) -> Result<(), StepError> {
        self.joined.check("a parameter")?;
        at_least_0("learning rate factor", self.lr_scale)?;
        at_least_0("weight decay", self.weight_decay.unwrap_or(0.0))?;
        Ok(())
    }
}

/// The state of an optimiser, one or two moments a tensor; it takes its form at the first step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moments {
    /// Tensor by tensor: no, one or two moments of as many elements as the parameter.
    pub tensors: Vec<Vec<Vec<f32>>>,
}

impl Moments {
    fn fit(&mut self, infos: &[TensorInfo], count: usize) -> Result<(), ClipError> {
        if self.tensors.is_empty() {
            let zeros = |info: &TensorInfo| vec![vec![0.0; info.elements as usize]; count];
            self.tensors = infos.iter().map(zeros).collect();
            return Ok(());
        }
        let needed: Vec<Vec<usize>> = infos.iter().map(|i| vec![i.elements as usize; count]).collect();
        let given: Vec<Vec<usize>> = self.tensors.iter().map(|t| t.iter().map(Vec::len).collect()).collect();
        if needed == given {
            return Ok(());
        }
        let words = |form: &[Vec<usize>]| format!("moments of {form:?} elements");
        Err(ClipError::State { required: words(&needed), given: words(&given) })
    }
}

/// Clips and makes one step of `optimizer`: gradients are read twice and never written. `history` and
/// `moments` are kept from step to step and begin as their defaults. Where a gradient is not finite
/// under [`NonFinite::Skip`](crate::NonFinite::Skip), no parameter and no moment moves and the step does
/// not count.
///
/// ```
/// use gradclip::{Clip, History, Sgd, cpu::{self, Moments, StepMut}};
///
/// let (mut p, g) = ([0.0f32, 0.0], [30.0f32, 40.0]);
/// let (mut history, mut moments) = (History::default(), Moments::default());
/// let mut steps = [StepMut::new("w", &g[..], &mut p)];
/// let sgd = Sgd::new(0.5).into();
/// let report = cpu::step(&mut steps, &Clip::global_norm(25.0), &sgd, &mut history, &mut moments)?;
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
    optimizer: &Optimizer,
    history: &mut History,
    moments: &mut Moments,
) -> Result<Report, StepError> {
    optimizer.validate()?;
    steps.iter().try_for_each(StepMut::check)?;
    let infos: Vec<TensorInfo> = steps.iter().map(|s| s.joined.info()).collect();
    let parts = Segments::new(&infos, clip)?;
    history.fit(clip, parts.limits.len())?;
    moments.fit(&infos, optimizer.moments())?;
    let gradients: Vec<Values<'_>> = steps.iter().map(|s| s.joined.gradient).collect();
    let parameters: Vec<Values<'_>> =
        steps.iter().filter(|_| parts.parameters).map(|s| Values::F32(s.joined.target)).collect();
    let trace = decided(&gradients, &parameters, &infos, &parts, clip, history);
    drop(parameters);
    let hyper = LossScale::add_to(clip.loss_scale, optimizer.record());
    advance::advance(&hyper, &history.tally, &mut history.progress);
    if history.progress.moves == 1 {
        let tensors = steps.iter_mut().zip(&mut moments.tensors).map(|(step, moments)| {
            let decay = step.weight_decay.unwrap_or(optimizer.weight_decay());
            let rates = Rates::new(&hyper, &history.progress, step.lr_scale as f32, decay as f32);
            (&mut step.joined, &mut moments[..], Action::Update(rates))
        });
        fused::run(tensors, &parts, &trace.outcomes);
    }
    Ok(trace.report.advanced(clip, &history.progress, Some(hyper.lr)))
}
