//! A pass that ends in an optimiser's step: parameters move, gradients stay as they are.

mod current;
mod setters;

use std::sync::Mutex;

use wgpu::BufferUsages as Usage;

use crate::clip::{Clip, LossScale};
use crate::error::{ClipError, PrepareError, ReadBackError};
use crate::grad::Grad;
use crate::history::History;
use crate::kernels::Kernel;
use crate::layout::{FusedRow, FusedTensor};
use crate::optimizer::{Optimizer, at_least_0};
use crate::plan::{FusedPlan, Operands, Ratios, RowWise, check_ranges};
use crate::tensor::{DType, Precision};

use super::clipper::Clipper;
use super::decision::Decision;
use super::make::{Make, Step, Wanted};
use super::mapped::ReadBack;
use super::moments::{Kept, Moment};
use super::pass::{Pass, begin, run};
use super::placements::{Buffers, check_usage};
use super::purpose::Purpose;
use super::shares_pass::shares_pass;
use current::Current;

/// Norm, coefficient and an optimiser's step over one set of gradients, prepared once and recorded
/// every step.
///
/// Gradients are read twice and never written, where clipping in place would read them three times and
/// write them. Clipped gradients are not rounded to 16 bits in between. Where a gradient is not finite
/// and the policy is [`NonFinite::Skip`](crate::NonFinite::Skip), no parameter and no state moves,
/// whatever segment it belongs to, and the step does not count. Under the other policies the step goes
/// on with what they leave.
///
/// ```no_run
/// # fn run(device: &gradclip::wgpu::Device, queue: &gradclip::wgpu::Queue, w: &gradclip::wgpu::Buffer,
/// #        dw: &gradclip::wgpu::Buffer) -> Result<(), Box<dyn std::error::Error>> {
/// use gradclip::{Adam, Clip, Clipper, DType, Grad, Schedule};
///
/// let schedule = Schedule::cosine(1e-3, 0.0, 10_000)?.warm_up(100);
/// let grads = [Grad::new("w", dw).parameter(w, 0, DType::F32)];
/// let clipper = Clipper::new(device)?;
/// let stepper = clipper.prepare_step(&grads, &Clip::global_norm(1.0), Adam::adamw(1e-3))?;
/// for t in 0..10_000 {
///     stepper.set_lr(queue, schedule.at(t))?;
///     let mut encoder = device.create_command_encoder(&Default::default());
///     // … forward and backward …
///     stepper.record_step(&mut encoder);
///     queue.submit([encoder.finish()]);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Stepper {
    pass: Pass,
    current: Mutex<Current>,
    decision: Decision,
    update: Vec<Step>,
    hyper: wgpu::Buffer,
    rates: wgpu::Buffer,
    /// Weight decay of those that have one of their own.
    own_decay: Vec<Option<f64>>,
    /// Whether it was prepared for an optimiser that limits updates.
    has_ratios: bool,
    kept: Kept,
}

impl Clipper {
    /// As [`Clipper::prepare_step`], in the form of [`Clipper::prepare_async`].
    ///
    /// # Errors
    ///
    /// As [`Clipper::prepare_step`].
    pub async fn prepare_step_async(
        &self,
        grads: &[Grad],
        clip: &Clip,
        optimizer: impl Into<Optimizer>,
    ) -> Result<Stepper, PrepareError> {
        self.prepared_step(grads, clip, optimizer.into(), (Purpose::Step, None)).await
    }

    /// As [`Clipper::prepare_step_after`], in the form of [`Clipper::prepare_async`].
    ///
    /// # Errors
    ///
    /// As [`Clipper::prepare_step_after`].
    pub async fn prepare_step_after_async(
        &self,
        previous: &Stepper,
        grads: &[Grad],
        clip: &Clip,
        optimizer: impl Into<Optimizer>,
    ) -> Result<Stepper, PrepareError> {
        self.prepared_step(grads, clip, optimizer.into(), (Purpose::Step, Some(previous))).await
    }

    /// For a purpose that ends in a step, which may go on with the state of another one.
    pub(super) async fn prepared_step(
        &self,
        grads: &[Grad],
        clip: &Clip,
        optimizer: Optimizer,
        (purpose, previous): (Purpose, Option<&Stepper>),
    ) -> Result<Stepper, PrepareError> {
        let optimizer = checked(grads, optimizer)?;
        if let Some(previous) = previous {
            previous.check_state(grads, &optimizer)?;
        }
        let pass = self.prepared(grads, clip, purpose, previous.map(|p| &p.pass)).await?;
        Clipper::check_given(grads)?;
        let kept = self.kept(grads, optimizer.moments(), previous.map(|p| &p.kept)).await?;
        Stepper::new(self, pass, grads, optimizer, kept).await
    }

    /// That what the user gave fits, before anything is allocated for it.
    pub(super) fn check_given(grads: &[Grad]) -> Result<(), PrepareError> {
        let mut buffers = Buffers::default();
        let given: Vec<Operands> = grads
            .iter()
            .map(|grad| {
                let named = |at| Moment::of(grad, at);
                let moments: Vec<Moment> = grad.moments.iter().map(named).collect();
                let updated = updated(grad, &moments, grad.master.as_ref().map(named).as_ref(), &mut buffers);
                Operands { gradient: buffers.gradient(grad), updated, ..Operands::default() }
            })
            .collect();
        Ok(check_ranges(&given)?)
    }
}

/// The optimiser, where it makes sense and every tensor has what its step needs.
fn checked(grads: &[Grad], optimizer: Optimizer) -> Result<Optimizer, PrepareError> {
    optimizer.validate()?;
    for grad in grads {
        let wrong = |required: String, given: String| {
            PrepareError::Clip(ClipError::Tensor { tensor: grad.name.clone(), required, given })
        };
        match &grad.parameter {
            None => return Err(wrong("its parameter, for a step".into(), "none".into())),
            Some(p) if p.dtype == DType::F64 => {
                return Err(wrong("a parameter of f32, f16 or bf16, for a step".into(), p.dtype.to_string()));
            }
            Some(p) if grad.of_rows.is_some() && grad.precision() != Precision::Single => {
                let required = "a table of f32 that is not rounded by chance, for a step on rows of it";
                return Err(wrong(
                    required.into(),
                    format!("one of {}, kept as {:?}", p.dtype, grad.precision()),
                ));
            }
            Some(p) if grad.stochastic.is_some() && p.dtype != DType::Bf16 => {
                return Err(wrong(
                    "a parameter of bf16, to be rounded by chance".into(),
                    p.dtype.to_string(),
                ));
            }
            Some(_) if grad.master.is_some() && !matches!(grad.precision(), Precision::Mixed(_)) => {
                let required = "a master for a parameter of 16 bits that is rounded to nearest, and no other";
                return Err(wrong(required.into(), format!("one for {:?}", grad.precision())));
            }
            Some(p) if grad.elements() > 0 => check_usage(grad, &p.buffer)?,
            Some(_) => {}
        }
        let (required, given) = (optimizer.moments(), grad.moments.len());
        if given != 0 && given != required {
            return Err(wrong(
                format!("{required} moments, or none to have them allocated"),
                given.to_string(),
            ));
        }
        let named = grad.moments.iter().chain(&grad.master).filter(|_| grad.elements() > 0);
        named.into_iter().try_for_each(|(buffer, _)| check_usage(grad, buffer))?;
        if optimizer.has_ratios() && grad.limits_update {
            grad.check_whole("a limit of its update, unless it is left out of that")?;
        }
        at_least_0("learning rate factor", grad.lr_scale)?;
        at_least_0("weight decay", grad.weight_decay.unwrap_or(0.0))?;
    }
    Ok(optimizer)
}

impl Stepper {
    /// That an optimiser of such tensors can go on with the state of this one.
    fn check_state(&self, grads: &[Grad], optimizer: &Optimizer) -> Result<(), ClipError> {
        let before = self.optimizer();
        if optimizer.goes_on_from(&before).is_err() {
            let (required, given) = (format!("{optimizer:?}"), format!("{before:?}"));
            return Err(ClipError::State { required, given });
        }
        let count = optimizer.moments();
        let of = |g: &Grad| {
            let elements = if count > 0 { g.parameter_elements() } else { 0 };
            (count, elements, matches!(g.precision(), Precision::Mixed(_)))
        };
        let needed: Vec<_> = grads.iter().map(of).collect();
        let given = self.kept.form();
        if needed == given {
            return Ok(());
        }
        let words = |form: &[(usize, u64, bool)]| format!("moments, elements and masters of {form:?}");
        Err(ClipError::State { required: words(&needed), given: words(&given) })
    }

    async fn new(
        clipper: &Clipper,
        pass: Pass,
        grads: &[Grad],
        optimizer: Optimizer,
        kept: Kept,
    ) -> Result<Stepper, PrepareError> {
        let mut buffers = Buffers::default();
        let operands: Vec<Operands> = grads
            .iter()
            .zip(kept.moments.iter().zip(&kept.masters))
            .zip(0u64..)
            .map(|((grad, (moments, master)), i)| Operands {
                gradient: buffers.gradient(grad),
                updated: updated(grad, moments, master.as_ref(), &mut buffers),
                table: grad.of_rows.as_ref().map(|(table, _)| *table),
                precision: grad.precision(),
                seed: grad.stochastic.map_or(0, |seed| seed.wrapping_add(i)),
                lr_scale: grad.lr_scale as f32,
                weight_decay: grad.weight_decay.unwrap_or(optimizer.weight_decay()) as f32,
                limited: grad.limits_update && optimizer.has_ratios(),
            })
            .collect();
        let limits = clipper.plan_limits();
        let fused = pass.plan().fused(&operands, &limits)?;
        let ratios = operands.iter().any(|own| own.limited);
        let ratios = ratios.then(|| pass.plan().ratios(&fused, &operands, &limits)).transpose()?;
        let own_decay = grads.iter().map(|g| g.weight_decay).collect();
        let lists: Vec<_> = grads.iter().map(|g| g.of_rows.as_ref().map(|(_, list)| list)).collect();
        let made = clipper.ready("preparing a step", || {
            let (plans, buffers) = ((&fused, ratios.as_ref()), (&buffers.all[..], &lists[..]));
            Stepper::assembled(clipper, pass, buffers, plans, optimizer, own_decay, kept)
        });
        made.await
    }

    fn assembled(
        clipper: &Clipper,
        mut pass: Pass,
        (buffers, lists): (&[wgpu::Buffer], &[Option<&wgpu::Buffer>]),
        (fused, ratios): (&FusedPlan, Option<&Ratios>),
        optimizer: Optimizer,
        own_decay: Vec<Option<f64>>,
        kept: Kept,
    ) -> Result<(Stepper, Wanted), PrepareError> {
        let mut make = Make::new(clipper, buffers, &pass.clip());
        (make.job, make.advances) = (pass.job(), true);
        let filler = FusedTensor { kept: 1, outer: 1, low: 1, high: 1, ..bytemuck::Zeroable::zeroed() };
        let rows: FusedRow = bytemuck::Zeroable::zeroed();
        let rows = make.table("gradclip fused chunks", &fused.rows, rows, Usage::STORAGE)?;
        let usage = Usage::STORAGE | Usage::COPY_DST;
        let rates = make.table("gradclip rates", &fused.tensors, filler, usage)?;
        let hyper = make.hyper(LossScale::add_to(pass.clip().loss_scale, optimizer.record()))?;
        let records = pass.records();
        let decision =
            make.decision(pass.plan(), &pass.clip(), records, pass.norm(), (Some(&hyper), false))?;
        let kernel = update_of(&optimizer);
        let tables = [&hyper, &records.memory.progress, &rows, &rates, &records.outcomes];
        let mut update = Vec::new();
        if let Some(kernel) = correction(&optimizer) {
            let tables = [&hyper, &records.memory.progress];
            update.push(make.step(kernel, DType::F32, make.job, &tables, None, [1, 1])?);
        }
        if let Some(ratios) = ratios {
            update.extend(make.ratios(ratios, &optimizer, records, [&hyper, &rates])?);
        }
        for dispatch in &fused.dispatches {
            update.push(make.fused(kernel, dispatch, false, &tables)?);
        }
        for RowWise { dispatch, pattern, tensor, part } in &fused.row_wise {
            let Some(list) = lists[*tensor] else { continue };
            let part = make.table("gradclip part of a table", &[*part], *part, Usage::UNIFORM)?;
            let tables = [&tables[..], &[list, &part]].concat();
            update.push(make.fused(kernel, &(dispatch.clone(), *pattern), false, &tables)?);
        }
        pass.add_jobs(make.jobs);
        pass.follow_with(&hyper);
        let has_ratios = optimizer.has_ratios();
        let current = Mutex::new(Current { optimizer, tensors: fused.tensors.clone() });
        let stepper = Stepper { pass, current, decision, update, hyper, rates, own_decay, has_ratios, kept };
        Ok((stepper, make.wanted))
    }

    /// Records norm, coefficient and step in one compute pass.
    pub fn record_step(&self, encoder: &mut wgpu::CommandEncoder) {
        let mut pass = begin(encoder, "gradclip step");
        self.pass.dispatch_together(&self.decision, &mut pass);
        run(&self.update, &mut pass);
    }

    /// Records the first half: the sum of each tensor and of each segment.
    pub fn record_norm(&self, encoder: &mut wgpu::CommandEncoder) {
        self.pass.record_norm(encoder);
    }

    /// Records the second half: coefficients from the sums of the segments, and the step.
    pub fn record_update(&self, encoder: &mut wgpu::CommandEncoder) {
        self.dispatch_update(&mut begin(encoder, "gradclip update"));
    }

    /// As [`Stepper::record_norm`], into a compute pass of the caller's.
    pub fn dispatch_norm(&self, pass: &mut wgpu::ComputePass<'_>) {
        self.pass.dispatch_norm(pass);
    }

    /// As [`Stepper::record_update`], into a compute pass of the caller's.
    pub fn dispatch_update(&self, pass: &mut wgpu::ComputePass<'_>) {
        self.pass.dispatch_separate(&self.decision, pass);
        run(&self.update, pass);
    }

    /// What a step records, for whoever records it otherwise.
    pub(super) fn dispatches(&self) -> [&[Step]; 2] {
        [&self.decision.together, &self.update]
    }

    /// Whether it was prepared for updates that are limited by their tensors.
    pub(super) fn has_ratios(&self) -> bool {
        self.has_ratios
    }

    /// Number of dispatches that one [`Stepper::record_step`] records: as [`Pass::dispatch_count`] has them, one more of NAdam, RAdam and SPAM, and three
    /// more where updates are limited by their tensors.
    pub fn dispatch_count(&self) -> usize {
        self.decision.together.len() + self.update.len()
    }

    /// The state of each tensor, in the order of the gradients: no, one, two or three moments.
    pub fn moments(&self) -> &[Vec<Moment>] {
        &self.kept.moments
    }

    /// The `f32` master of each tensor whose parameter has 16 bits, in the order of the gradients.
    pub fn masters(&self) -> &[Option<Moment>] {
        &self.kept.masters
    }
}

shares_pass!(Stepper);

/// The kernel of an optimiser's step.
fn update_of(optimizer: &Optimizer) -> Kernel {
    match (optimizer, optimizer.moments()) {
        (Optimizer::Adam(_), 3) => Kernel::UpdateAmsgrad,
        (Optimizer::Adam(_), _) => Kernel::UpdateAdam,
        (Optimizer::NAdam(_), _) => Kernel::UpdateNadam,
        (Optimizer::RAdam(_), _) => Kernel::UpdateRadam,
        (Optimizer::Spam(_), _) => Kernel::UpdateSpam,
        (Optimizer::Adopt(_), _) => Kernel::UpdateAdopt,
        (Optimizer::Lion(_), _) => Kernel::UpdateLion,
        (Optimizer::Lars(_), _) => Kernel::UpdateLars,
        (Optimizer::Sgd(_), 0) => Kernel::UpdateSgd,
        (Optimizer::Sgd(_), _) => Kernel::UpdateMomentum,
    }
}

/// The kernel of what it corrects beyond Adam, if anything.
fn correction(optimizer: &Optimizer) -> Option<Kernel> {
    match optimizer {
        Optimizer::NAdam(_) => Some(Kernel::CorrectNadam),
        Optimizer::RAdam(_) => Some(Kernel::CorrectRadam),
        Optimizer::Spam(_) => Some(Kernel::CorrectSpam),
        _ => None,
    }
}

/// What a step on a gradient updates, in the order of [`Operands::updated`].
fn updated(
    grad: &Grad,
    moments: &[Moment],
    master: Option<&Moment>,
    buffers: &mut Buffers,
) -> Vec<crate::plan::Placement> {
    let Some(p) = &grad.parameter else { return Vec::new() };
    let names = ["first moment", "second moment", "largest second moment"];
    let moments = names.into_iter().zip(moments).map(|(what, m)| (what, DType::F32, (&m.buffer, m.offset)));
    let parameter = ("parameter", p.dtype, (&p.buffer, p.offset));
    let master = master.map(|m| ("master", DType::F32, (&m.buffer, m.offset)));
    let (first, last) = (master.unwrap_or(parameter), master.map(|_| parameter));
    let all = std::iter::once(first).chain(moments).chain(last);
    all.map(|(what, dtype, at)| buffers.operand(grad, what, dtype, at)).collect()
}
