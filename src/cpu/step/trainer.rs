//! What a training loop does with gradients: the twin of [`Trainer`](crate::Trainer).

use bytemuck::Zeroable;

use crate::clip::{Clip, Skip};
use crate::cpu::block::Values;
use crate::cpu::fused;
use crate::cpu::grads::Slice;
use crate::cpu::kept::{Kept, check};
use crate::cpu::parameter::ParameterMut;
use crate::cpu::recycled::recycled;
use crate::cpu::room::Room;
use crate::cpu::set::Set;
use crate::cpu::update::Action;
use crate::cpu::workspace::Workspace;
use crate::error::{ClipError, StepError};
#[cfg(feature = "checkpoint")]
use crate::history::History;
use crate::layout::Outcome;
use crate::optimizer::Optimizer;
use crate::report::Report;
use crate::segments::Segments;
use crate::tensor::TensorInfo;

use super::moments::Moments;
use super::prepared::PreparedStep;
use super::tensor::{StepMut, TO_PREPARE};

/// Sums of micro-batches, and clip and step after the last of them, prepared by [`prepare_training`]: the twin of
/// [`Trainer`](crate::Trainer).
#[derive(Debug)]
pub struct Trainer {
    step: PreparedStep,
    sums: Option<Sums>,
    /// What leaves out micro-batches, where a rule does.
    gate: Option<Kept>,
    micro_batches: u32,
    /// Micro-batches since the last step.
    summed: u32,
}

#[derive(Debug)]
struct Sums {
    /// One a tensor.
    all: Vec<Vec<f32>>,
    infos: Vec<TensorInfo>,
    /// All tensors in one segment, which is left as it is.
    parts: Segments,
    room: Room,
}

/// Prepares a loop's step over the mean of `micro_batches` gradients, 1 for a step on every one, for tensors like these, whose
/// elements are not read.
///
/// ```
/// use gradclip::{Clip, Sgd, cpu::{self, StepMut}};
///
/// let (mut w, g) = ([0.0f32; 2], [[3.0f32, 0.0], [3.0, 8.0], [30.0, 40.0]]);
/// let like = [StepMut::new("w", &g[0][..], &mut w)];
/// let mut trainer = cpu::prepare_training(&like, &Clip::global_norm(5.0), Sgd::new(1.0), 2)?;
/// assert!(!trainer.record([(&g[0][..], &mut w)])?);
/// assert!(trainer.record([(&g[1][..], &mut w)])?);
/// assert_eq!(w, [-3.0, -4.0]); // the mean, whose norm is 5
/// assert!(!trainer.record([(&g[2][..], &mut w)])?);
/// assert!(trainer.finish([&mut w])?);
/// assert_eq!(w, [-6.0, -8.0]); // the mean of one, clipped from 50 to 5
/// assert_eq!(trainer.step().report().map(|report| report.updates), Some(2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// As [`prepare_step()`](super::prepare_step()), and [`ClipError::Combination`] for no micro-batch.
pub fn prepare_training(
    steps: &[StepMut<'_>],
    clip: &Clip,
    optimizer: impl Into<Optimizer>,
    micro_batches: u32,
) -> Result<Trainer, StepError> {
    if micro_batches == 0 {
        let (what, required) = ("a number of micro-batches", "1 or more");
        return Err(ClipError::Combination { what, required }.into());
    }
    clip.validate()?;
    steps.iter().try_for_each(|step| step.check_whole(TO_PREPARE))?;
    let clip = clip.unscale(clip.unscale / f64::from(micro_batches));
    let mut step = PreparedStep::of_sums(steps, &clip, optimizer.into(), micro_batches > 1)?;
    step.restore_moments(Moments::default())?;
    let sums = (micro_batches > 1).then(|| Sums::new(steps)).transpose()?;
    Ok(Trainer { step, sums, gate: None, micro_batches, summed: 0 })
}

/// As [`prepare_training`], and a rule leaves out micro-batches before they are summed: the twin of
/// [`Clipper::prepare_training_skipping`](crate::Clipper::prepare_training_skipping).
///
/// ```
/// use gradclip::{Clip, Sgd, Skip, cpu::{self, StepMut}};
///
/// let (mut w, g) = ([0.0f32; 2], [[3.0f32, 0.0], [900.0, 0.0], [3.0, 8.0]]);
/// let like = [StepMut::new("w", &g[0][..], &mut w)];
/// let (clip, skip) = (Clip::global_norm(10.0), Skip::non_finite().above(100.0));
/// let mut trainer = cpu::prepare_training_skipping(&like, &clip, Sgd::new(1.0), 2, skip)?;
/// let stepped = g.map(|g| trainer.record([(&g[..], &mut w)]).unwrap());
/// assert_eq!((stepped, w), ([false, false, true], [-3.0, -4.0])); // the mean of the first and the third
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// As [`prepare_training`], and [`ClipError::Combination`] for a single micro-batch or beside a loss scale.
pub fn prepare_training_skipping(
    steps: &[StepMut<'_>],
    clip: &Clip,
    optimizer: impl Into<Optimizer>,
    micro_batches: u32,
    skip: Skip,
) -> Result<Trainer, StepError> {
    let trainer = prepare_training(steps, clip, optimizer, micro_batches)?;
    let clip = clip.of_micro_batches(skip, micro_batches)?;
    let infos: Vec<TensorInfo> = steps.iter().map(|s| s.operands.info()).collect();
    let parts = Segments::new(&infos, &clip)?;
    let workspace = Workspace::new(&infos, &parts);
    let gate = Kept::new(Set { infos, parts, double: false }, &clip, workspace)?;
    Ok(Trainer { gate: Some(gate), ..trainer })
}

impl Sums {
    fn new(steps: &[StepMut<'_>]) -> Result<Sums, ClipError> {
        let infos: Vec<TensorInfo> = steps.iter().map(|s| s.operands.info()).collect();
        let parts = Segments::in_one(&infos)?;
        let all = infos.iter().map(|info| vec![0.0; info.elements as usize]).collect();
        Ok(Sums { all, infos, parts, room: Room::default() })
    }

    fn add(&mut self, gradients: &[Values<'_>], begins: bool) {
        let Sums { all, parts, room, .. } = self;
        let action = Action::Add { begins };
        let members = gradients.iter().zip(all).map(|(g, sum)| (*g, sum.into(), &mut [][..], action, None));
        // All zeros keep gradients as they are.
        let outcomes = [Outcome::zeroed()];
        let mut work = recycled(std::mem::take(&mut room.fused));
        fused::run(members, parts, &outcomes, &mut work);
        room.fused = recycled(work);
    }
}

/// Whether a micro-batch is left out.
fn leaves_out(gate: &mut Kept, gradients: &[Values<'_>]) -> bool {
    gate.decide(gradients, &[]);
    gate.history.tally.skipped > 0
}

impl Trainer {
    /// Adds a micro-batch's gradients, each with its parameter in the order prepared, and steps where it is the last one of a step.
    /// Whether it was.
    ///
    /// # Errors
    ///
    /// As [`PreparedStep::step`]; nothing is written then.
    pub fn record<'a, G, P>(&mut self, tensors: impl IntoIterator<Item = (G, P)>) -> Result<bool, ClipError>
    where
        G: Into<Slice<'a>>,
        P: Into<ParameterMut<'a>>,
    {
        let Some(sums) = &mut self.sums else { return self.step.step(tensors).map(|()| true) };
        let mut gradients = recycled(std::mem::take(&mut sums.room.values));
        let mut parameters = recycled(std::mem::take(&mut sums.room.targets));
        for (gradient, parameter) in tensors {
            gradients.push(gradient.into().data);
            parameters.push(parameter.into());
        }
        let checked = check(&sums.infos, gradients.iter().map(|g| (g.len(), g.dtype())))
            .and_then(|()| self.step.check_parameters(&parameters));
        let left_out = checked.is_ok() && self.gate.as_mut().is_some_and(|gate| leaves_out(gate, &gradients));
        let adds = checked.is_ok() && !left_out;
        if adds {
            sums.add(&gradients, self.summed == 0);
            self.summed += 1;
        }
        let ends = adds && self.summed == self.micro_batches;
        if ends {
            self.summed = 0;
            sums.step(&mut self.step, &mut parameters);
        }
        (sums.room.values, sums.room.targets) = (recycled(gradients), recycled(parameters));
        checked.map(|()| ends)
    }

    /// Steps by the mean of the micro-batches since the last step, fewer than usual: at the end of an epoch, say. Whether there were
    /// any.
    ///
    /// # Errors
    ///
    /// As [`PreparedStep::step`]; nothing is written then.
    pub fn finish<'a, P>(&mut self, parameters: impl IntoIterator<Item = P>) -> Result<bool, ClipError>
    where
        P: Into<ParameterMut<'a>>,
    {
        let Some(sums) = self.sums.as_mut().filter(|_| self.summed > 0) else { return Ok(false) };
        let mut parameters: Vec<ParameterMut<'_>> = parameters.into_iter().map(P::into).collect();
        self.step.check_parameters(&parameters)?;
        let correction = f64::from(self.micro_batches) / f64::from(self.summed);
        self.summed = 0;
        self.step.correct_mean(correction as f32);
        sums.step(&mut self.step, &mut parameters);
        self.step.correct_mean(1.0);
        Ok(true)
    }

    /// Forgets the micro-batches since the last step: the next one begins a sum.
    pub fn discard(&mut self) {
        self.summed = 0;
    }

    /// Micro-batches since the last step.
    pub fn accumulated(&self) -> u32 {
        self.summed
    }

    /// Micro-batches of a step.
    pub fn micro_batches(&self) -> u32 {
        self.micro_batches
    }

    /// What leaves out micro-batches, where a rule does: the report of the last one, which allocates.
    pub fn gate_report(&self) -> Option<Report> {
        self.gate.as_ref().filter(|gate| gate.begun()).map(|gate| gate.report(None))
    }

    #[cfg(feature = "checkpoint")]
    pub(super) fn gate(&self) -> Option<&Kept> {
        self.gate.as_ref()
    }

    /// The sum of each gradient; none where every micro-batch is a step.
    pub fn sums(&self) -> &[Vec<f32>] {
        self.sums.as_ref().map_or(&[], |sums| &sums.all)
    }

    #[cfg(feature = "checkpoint")]
    pub(super) fn sums_mut(&mut self) -> &mut [Vec<f32>] {
        self.sums.as_mut().map_or(&mut [], |sums| &mut sums.all)
    }

    /// From what fits this run.
    #[cfg(feature = "checkpoint")]
    pub(super) fn go_on(
        &mut self,
        history: History,
        moments: Moments,
        accumulated: u32,
    ) -> Result<(), ClipError> {
        self.step.restore_history(history)?;
        self.step.restore_moments(moments)?;
        self.summed = accumulated;
        Ok(())
    }

    /// Clip and step by themselves: what is remembered, and the last step's report.
    pub fn step(&self) -> &PreparedStep {
        &self.step
    }

    /// The same, to be set: the learning rate, the threshold, what is remembered. What
    /// [`PreparedStep::set_unscale`] sets divides by the number of micro-batches, too.
    pub fn step_mut(&mut self) -> &mut PreparedStep {
        &mut self.step
    }
}

impl Sums {
    /// A step by the sums of parameters that fit.
    fn step(&mut self, step: &mut PreparedStep, parameters: &mut [ParameterMut<'_>]) {
        let mut sums = recycled(std::mem::take(&mut self.room.parameters));
        sums.extend(self.all.iter().map(|sum| Values::F32(sum)));
        step.run(&sums, parameters, &[]);
        self.room.parameters = recycled(sums);
    }
}
