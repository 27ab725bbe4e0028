//! A clip and an optimiser's step prepared for tensors that come again.

mod setters;

use crate::clip::{Clip, LossScale};
use crate::cpu::advance::advance;
use crate::cpu::block::Values;
use crate::cpu::fused;
use crate::cpu::grads::Slice;
use crate::cpu::kept::Kept;
use crate::cpu::parameter::ParameterMut;
use crate::cpu::ratio::{Unmoved, ratios};
use crate::cpu::recycled::recycled;
use crate::cpu::room::Room;
use crate::cpu::set::Set;
use crate::cpu::update::{Action, Rates};
use crate::cpu::workspace::Workspace;
use crate::error::{ClipError, StepError};
use crate::history::History;
use crate::layout::{Hyper, Progress};
use crate::optimizer::Optimizer;
use crate::report::Report;
use crate::segments::Segments;
use crate::tensor::{DType, Precision, TensorInfo};

use super::moments::Moments;
use super::tensor::{StepMut, TO_PREPARE};

/// Clip and step for tensors of one form, prepared by [`prepare_step`]: the twin of [`Stepper`](crate::Stepper).
///
/// Names, shapes and groups are checked once, and a step allocates nothing (but for what rayon may for its own queue). It has
/// its own [`History`] and [`Moments`], so that it counts steps, and thresholds may adapt.
#[derive(Debug)]
pub struct PreparedStep {
    pub(in crate::cpu) kept: Kept,
    optimizer: Optimizer,
    moments: Moments,
    own: Vec<Own>,
    /// The learning rate of the last step.
    lr: Option<f32>,
    pub(in crate::cpu) room: Room,
}

/// What a tensor has of its own.
#[derive(Debug)]
struct Own {
    /// Elements of the parameter.
    elements: usize,
    lr_scale: f64,
    weight_decay: Option<f64>,
    precision: Precision,
    seed: u64,
    limits_update: bool,
}

impl Own {
    fn of((i, step): (u64, &StepMut<'_>)) -> Own {
        let &StepMut { ref operands, lr_scale, weight_decay, stochastic, limits_update } = step;
        let seed = stochastic.map_or(0, |seed| seed.wrapping_add(i));
        let precision = operands.target.precision();
        let elements = operands.target.len();
        Own { elements, lr_scale, weight_decay, precision, seed, limits_update }
    }

    /// The constants of this tensor in a step.
    fn rates(&self, optimizer: &Optimizer, hyper: &Hyper, progress: &Progress) -> Rates {
        let decay = self.weight_decay.unwrap_or(optimizer.weight_decay());
        Rates::new(hyper, progress, (self.lr_scale as f32, decay as f32), self.seed)
    }
}

/// Prepares clip and step of `optimizer` for tensors like these, whose elements are not read: names, lengths, types, shapes,
/// groups, and what each has of its own of learning rate and weight decay.
///
/// ```
/// use gradclip::{Adam, Clip, Schedule, cpu::{self, StepMut}};
///
/// let (mut w, mut b) = (vec![1.0f32; 4], vec![0.0f32; 2]);
/// let (mut dw, mut db) = (vec![0.0f32; 4], vec![0.0f32; 2]);
/// let like = [StepMut::new("w", &dw[..], &mut w), StepMut::new("b", &db[..], &mut b).weight_decay(0.0)];
/// let mut prepared = cpu::prepare_step(&like, &Clip::global_norm(4.0), Adam::adamw(1e-3))?;
/// let schedule = Schedule::cosine(1e-3, 0.0, 3)?;
/// for t in 0..3 {
///     prepared.set_lr(schedule.at(t))?;
///     // Where the backward pass would be:
///     dw.copy_from_slice(&[-2.0, 0.0, 0.0, 4.0]);
///     db.copy_from_slice(&[1.0, -2.0]);
///     prepared.step([(&dw[..], &mut w[..]), (&db[..], &mut b[..])])?;
/// }
/// assert_eq!(prepared.norm(), Some(5.0));
/// assert_eq!(prepared.report().map(|report| report.updates), Some(3));
/// assert!(w[0] > 1.0 && w[3] < 1.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// A clip or optimiser that does not validate, a parameter of another length than its gradient, tensors without what the clip
/// needs, rows of a table, which are others in each step.
pub fn prepare_step(
    steps: &[StepMut<'_>],
    clip: &Clip,
    optimizer: impl Into<Optimizer>,
) -> Result<PreparedStep, StepError> {
    steps.iter().try_for_each(|step| step.check_whole(TO_PREPARE))?;
    let mut prepared = PreparedStep::without_moments(steps, clip, optimizer.into())?;
    prepared.restore_moments(Moments::default())?;
    Ok(prepared)
}

impl PreparedStep {
    /// What needs moments before it makes a step.
    pub(super) fn without_moments(
        steps: &[StepMut<'_>],
        clip: &Clip,
        optimizer: Optimizer,
    ) -> Result<PreparedStep, StepError> {
        PreparedStep::of_sums(steps, clip, optimizer, false)
    }

    /// The same where gradients may be `sums` of such, which are of `f32`.
    pub(super) fn of_sums(
        steps: &[StepMut<'_>],
        clip: &Clip,
        optimizer: Optimizer,
        sums: bool,
    ) -> Result<PreparedStep, StepError> {
        optimizer.validate()?;
        steps.iter().try_for_each(StepMut::check)?;
        if optimizer.has_ratios() {
            let limited = steps.iter().filter(|step| step.limits_update);
            limited.into_iter().try_for_each(|step| {
                step.check_whole("for a limit of its update, unless it is left out of that")
            })?;
        }
        let dtype = |dtype: DType| if sums { DType::F32 } else { dtype };
        let info = |s: &StepMut<'_>| {
            let info = s.operands.info();
            TensorInfo { dtype: dtype(info.dtype), ..info }
        };
        let infos: Vec<_> = steps.iter().map(info).collect();
        let parts = Segments::new(&infos, clip)?;
        let workspace = Workspace::new(&infos, &parts);
        Ok(PreparedStep {
            kept: Kept::new(Set { infos, parts, double: false }, clip, workspace)?,
            optimizer,
            moments: Moments::default(),
            own: (0..).zip(steps).map(Own::of).collect(),
            lr: None,
            room: Room::default(),
        })
    }

    /// Clips and makes a step, with each gradient and its parameter in the order prepared: the same bits as
    /// [`step`](super::step()). Gradients are read and never written. Runs on rayon's current thread pool; small sets run on
    /// the calling thread.
    ///
    /// # Errors
    ///
    /// [`ClipError::Tensor`] for a gradient or parameter of another length or type than was prepared, [`ClipError::Count`]
    /// where there are more or fewer. Nothing is written then.
    pub fn step<'a, G, P>(&mut self, tensors: impl IntoIterator<Item = (G, P)>) -> Result<(), ClipError>
    where
        G: Into<Slice<'a>>,
        P: Into<ParameterMut<'a>>,
    {
        self.with_room(tensors, |own, gradients, targets| {
            own.run(gradients, targets, &[]);
            Ok(())
        })
    }

    /// Runs on tensors that fit, in the room that the last ones left.
    pub(in crate::cpu) fn with_room<'a, G, P>(
        &mut self,
        tensors: impl IntoIterator<Item = (G, P)>,
        run: impl FnOnce(&mut PreparedStep, &[Values<'a>], &mut [ParameterMut<'a>]) -> Result<(), ClipError>,
    ) -> Result<(), ClipError>
    where
        G: Into<Slice<'a>>,
        P: Into<ParameterMut<'a>>,
    {
        let mut gradients = recycled(std::mem::take(&mut self.room.values));
        let mut targets = recycled(std::mem::take(&mut self.room.targets));
        for (gradient, parameter) in tensors {
            gradients.push(gradient.into().data);
            targets.push(parameter.into());
        }
        let result = self.check(&gradients, &targets).and_then(|()| run(self, &gradients, &mut targets));
        (self.room.values, self.room.targets) = (recycled(gradients), recycled(targets));
        result
    }

    /// Whether an update has a factor that follows from its whole tensor.
    pub(in crate::cpu) fn limits_updates(&self) -> bool {
        self.optimizer.has_ratios() && self.own.iter().any(|own| own.limits_update)
    }

    /// What is asked, and of how many limits.
    #[cfg(feature = "checkpoint")]
    pub(super) fn asked(&self) -> (Clip, usize) {
        (self.kept.clip, self.kept.set.parts.limits.len())
    }

    /// How each parameter is kept.
    #[cfg(feature = "checkpoint")]
    pub(super) fn precisions(&self) -> impl Iterator<Item = Precision> + '_ {
        self.own.iter().map(|own| own.precision)
    }

    /// The tensors as they were prepared.
    #[cfg(feature = "checkpoint")]
    pub(super) fn infos(&self) -> &[TensorInfo] {
        &self.kept.set.infos
    }

    fn check(&self, gradients: &[Values<'_>], parameters: &[ParameterMut<'_>]) -> Result<(), ClipError> {
        self.kept.check(gradients.iter().map(|g| (g.len(), g.dtype())))?;
        self.check_parameters(parameters)
    }

    /// That they are as many, as long and kept as those that were prepared.
    pub(super) fn check_parameters(&self, parameters: &[ParameterMut<'_>]) -> Result<(), ClipError> {
        if parameters.len() != self.own.len() {
            let (required, given) = (self.own.len(), parameters.len());
            return Err(ClipError::Count { required, given });
        }
        for (i, (parameter, own)) in parameters.iter().zip(&self.own).enumerate() {
            let elements = own.elements;
            if let Some(given) = parameter.lens().into_iter().find(|&given| given != elements) {
                let required = format!("a parameter of {elements} elements, as prepared");
                return Err(self.kept.wrong(i, required, given.to_string()));
            }
            let given = parameter.precision();
            if given != own.precision {
                let required = format!("a parameter kept as {:?}, as prepared", own.precision);
                return Err(self.kept.wrong(i, required, format!("{given:?}")));
            }
        }
        Ok(())
    }

    /// What gradients are multiplied by besides, in the steps that follow.
    pub(super) fn correct_mean(&mut self, correction: f32) {
        self.kept.history.progress.mean_correction = correction;
    }

    /// Of tensors that fit. `rows` are those of tables, tensor by tensor, or none at all.
    pub(super) fn run(
        &mut self,
        gradients: &[Values<'_>],
        targets: &mut [ParameterMut<'_>],
        rows: &[Option<&[u32]>],
    ) {
        let PreparedStep { kept, room, .. } = self;
        let mut parameters = recycled(std::mem::take(&mut room.parameters));
        if kept.set.parts.parameters {
            let rows = rows.iter().copied().chain(std::iter::repeat(None));
            // Nobody asks for that of rows of a table, whose group is excluded.
            parameters.extend(targets.iter().zip(rows).map(|(target, rows)| match rows {
                None => target.values(),
                Some(_) => Values::F32(&[]),
            }));
        }
        kept.decide(gradients, &parameters);
        room.parameters = recycled(parameters);
        self.follow(gradients, targets, rows);
    }

    /// What follows the decision.
    pub(in crate::cpu) fn follow(
        &mut self,
        gradients: &[Values<'_>],
        targets: &mut [ParameterMut<'_>],
        rows: &[Option<&[u32]>],
    ) {
        let PreparedStep { kept, optimizer, moments, own, lr, room } = self;
        let hyper = LossScale::add_to(kept.clip.loss_scale, optimizer.record());
        let History { tally, progress, .. } = &mut kept.history;
        advance(&hyper, tally, progress);
        *lr = Some(hyper.lr);
        if progress.moves != 1 {
            return;
        }
        let (parts, outcomes) = (&kept.set.parts, &kept.workspace.outcomes);
        room.ratios.clear();
        if optimizer.has_ratios() {
            let (owners, parameters, moments) = (&parts.owners[..], &*targets, &moments.tensors[..]);
            let unmoved = Unmoved { gradients, parameters, moments, owners, outcomes };
            // Rows of tables are left out.
            let limited = |tensor: usize| {
                own[tensor].limits_update.then(|| own[tensor].rates(optimizer, &hyper, progress))
            };
            ratios(unmoved, &limited, &mut room.measured, &mut room.ratios);
        }
        let rows = rows.iter().copied().chain(std::iter::repeat(None));
        let factors = room.ratios.iter().copied().chain(std::iter::repeat(1.0));
        let each = gradients.iter().zip(targets).zip(&mut moments.tensors).zip(own);
        let members =
            each.zip(rows.zip(factors)).map(|((((gradient, target), moments), own), (rows, ratio))| {
                let mut rates = own.rates(optimizer, &hyper, progress);
                rates.ratio = ratio;
                let rates = if rows.is_some() { rates.by_rows() } else { rates };
                (*gradient, target.reborrowed(), &mut moments[..], Action::Update(rates), rows)
            });
        let mut work = recycled(std::mem::take(&mut room.fused));
        fused::run(members, parts, outcomes, &mut work);
        room.fused = recycled(work);
    }

    /// As [`PreparedStep::step`] for a history and moments that someone else keeps, and tensors that fit.
    pub(super) fn step_for(
        &mut self,
        (history, moments): (&mut History, &mut Moments),
        gradients: &[Values<'_>],
        targets: &mut [ParameterMut<'_>],
        rows: &[Option<&[u32]>],
    ) -> Result<Report, ClipError> {
        let Set { parts, .. } = &self.kept.set;
        let mut formed = history.clone();
        formed.fit(&self.kept.clip, parts.limits.len())?;
        moments.fit(self.own.iter().map(|own| own.elements), self.optimizer.moments())?;
        *history = formed;
        let mut exchange = |own: &mut PreparedStep| {
            std::mem::swap(&mut own.kept.history, history);
            std::mem::swap(&mut own.moments, moments);
        };
        exchange(self);
        self.run(gradients, targets, rows);
        let report = self.kept.report(self.lr);
        exchange(self);
        Ok(report)
    }
}
