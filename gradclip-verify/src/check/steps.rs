//! Optimiser steps on a device and on the CPU path, and these beside plain f64 programs.

use gradclip::cpu::{self, Trace};
use gradclip::{Clip, Stepper};

use crate::budget::TRAINING_STEPS as STEPS;
use crate::check::progress;
use crate::check::training::{State, Training, progress};
use crate::failure::Failure;
use crate::gpu::{Gpu, Operands, Placed, Placing};
use crate::inputs::Case;
use crate::oracle::decision::{Changes, Expected};
use crate::oracle::in_f64::Exact;
use crate::oracle::near::{Machine, Near};
use crate::oracle::optimizer::Step;
use crate::tally::{Findings, Wrong};
use crate::tensor::{Data, Tensor, floats, grads};
use crate::tolerance::HALF_ULP;

/// Where tensors lie that belong to gradients: packed without a gap but the first, or so far apart that each can be
/// bound by itself.
pub(crate) fn placing_of_operands(packed: bool) -> Placing {
    Placing { alignment: if packed { 4 } else { 256 }, ..Placing::arena(12, 0) }
}

/// A training on a device.
struct There<'a> {
    gpu: &'a Gpu,
    placed: Placed,
    /// Parameters, then moments.
    roles: Vec<Operands>,
    /// What parameters are rounded to, where they are masters, and what is to be there.
    halves: Option<(Operands, Vec<Data>)>,
    stepper: Stepper,
}

impl<'a> There<'a> {
    async fn new(gpu: &'a Gpu, training: &Training, state: &State) -> Result<There<'a>, Failure> {
        let case = training.batch(0, state);
        let mut placed = Placed::upload(gpu, &case.tensors, case.placing);
        let upload = |role| {
            let data: Vec<Data> = state.tensors(role).into_iter().map(Data::from).collect();
            Operands::upload(gpu, data.iter(), placing_of_operands(training.arena))
        };
        let roles: Vec<Operands> = (0..training.roles().len()).map(upload).collect();
        placed.set_parameters(roles[0].clone());
        let halves = training.half.map(|element| {
            let zeros = |p: &Vec<f32>| Data::rounded(element, &vec![0.0; p.len()]);
            let zeros: Vec<Data> = state.parameters.iter().map(zeros).collect();
            // One behind the other, so that words are shared.
            (Operands::upload(gpu, zeros.iter(), Placing::PACKED), zeros)
        });
        for (t, grad) in placed.grads.iter_mut().enumerate() {
            for (buffer, offset) in roles[1..].iter().map(|role| role.at(t)) {
                *grad = grad.clone().moment(buffer, offset);
            }
            if let Some((halves, data)) = &halves {
                let ((buffer, offset), (master, at)) = (halves.at(t), roles[0].at(t));
                *grad = grad.clone().parameter(buffer, offset, data[t].dtype()).master(master, at);
            }
        }
        let stepper =
            gpu.clipper.prepare_step_async(&placed.grads, &training.clip, training.optimizer).await?;
        stepper.pass().restore_history(&gpu.queue, &state.history)?;
        Ok(There { gpu, placed, roles, halves, stepper })
    }

    /// Makes a step. Gives the progress, what each role holds, and the gradients.
    async fn step(&mut self, case: &Case) -> Result<Vec<Vec<u8>>, Failure> {
        let There { gpu, placed, roles, stepper, .. } = self;
        placed.put(gpu, &case.tensors);
        let staged = gpu.submit(|encoder| {
            stepper.record_step(encoder);
            let roles = roles.iter().map(|r| &r.buffers[0]);
            gpu.stage(encoder, std::iter::once(stepper.pass().progress()).chain(roles).chain(&placed.buffers))
        });
        gpu.collect_async(&staged).await
    }

    /// Whether what parameters are rounded to is that, to the bit, and nothing beside it has changed.
    async fn rounds(&mut self, masters: &[Vec<f32>], moves: bool) -> Result<bool, Failure> {
        let Some((halves, want)) = &mut self.halves else { return Ok(true) };
        if moves {
            want.iter_mut().zip(masters).for_each(|(want, p)| *want = Data::rounded(want.element(), p));
        }
        let got = halves.read_async(self.gpu).await?;
        let nan = |data: &Data, i: usize| data.value(i).is_nan();
        let same = |(got, want): (&Data, &Data)| {
            let one = |i| got.bits(i) == want.bits(i) || (nan(got, i) && nan(want, i));
            got.len() == want.len() && (0..got.len()).all(one)
        };
        Ok(got.iter().zip(&*want).all(same))
    }

    /// The tensors of each role in what was read back. None where something changed between them.
    fn tensors(&self, got: &[Vec<u8>]) -> Option<Vec<Vec<Vec<f32>>>> {
        let floats = |data: Vec<Data>| data.iter().map(Data::floats).collect();
        self.roles.iter().zip(got.chunks(1)).map(|(role, bytes)| role.data(bytes).map(floats)).collect()
    }
}

/// Steps of a device beside those of the CPU path, which goes on from what the device has: so each step
/// is judged by itself. Gives the findings of the update and of the progress.
pub(crate) async fn on_gpu(gpu: &Gpu, training: &Training) -> Result<[Findings; 2], Failure> {
    let mut state = training.begin()?;
    let mut there = There::new(gpu, training, &state).await?;
    let (mut update, mut advance) = (Findings::default(), Findings::default());
    for step in 0..STEPS {
        let case = training.batch(step, &state);
        let got = there.step(&case).await?;
        let before = state.clone();
        state.step(training, &case)?;
        let now = progress(&state.history);
        advance.join(progress::compare(step, &got[0], &now));
        if advance.wrong > 0 {
            break; // No update is right then.
        }
        let Some(tensors) = there.tensors(&got[1..]) else {
            update.named(f64::INFINITY, 0.0, touched(step, "bits next to the tensors changed"));
            break;
        };
        if !there.placed.untouched(&got[1 + there.roles.len()..]) {
            update.named(f64::INFINITY, 0.0, touched(step, "bits of gradients changed"));
        }
        let moves = state.history.updates() > before.history.updates();
        if !there.rounds(&tensors[0], moves).await? {
            update.named(f64::INFINITY, 0.0, touched(step, "parameters that are not their masters rounded"));
        }
        let pair = Pair { training, before: &before, after: &state, clipped: clipped(&case, &before)?, step };
        // Moments first: what is wrong with them shows in the parameter too.
        tensors.iter().enumerate().rev().for_each(|(role, got)| pair.compare(role, got, &mut update));
        tensors.into_iter().enumerate().for_each(|(role, got)| state.take(role, got));
    }
    Ok([update, advance])
}

/// What must not change did, once.
pub(crate) fn touched(step: usize, what: &'static str) -> Wrong {
    Wrong { step, what, at: None, got: 1.0, expected: 0.0 }
}

/// The clipped gradients, not rounded to 16 bits.
fn clipped(case: &Case, state: &State) -> Result<Vec<Vec<f32>>, Failure> {
    let wide = |t: &Tensor| Tensor { data: t.data.clone().widened(), ..t.clone() };
    let mut tensors: Vec<Tensor> = case.tensors.iter().map(wide).collect();
    cpu::clip_with(&mut grads(&mut tensors), &case.clip, &mut state.history.clone())?;
    Ok(floats(&tensors))
}

/// A step of the CPU path that a device should have made too.
struct Pair<'a> {
    training: &'a Training,
    before: &'a State,
    after: &'a State,
    clipped: Vec<Vec<f32>>,
    step: usize,
}

impl Pair<'_> {
    fn compare(&self, role: usize, got: &[Vec<f32>], findings: &mut Findings) {
        let Pair { training, before, after, step, .. } = *self;
        let t = after.history.updates() as u32;
        let moves = after.history.updates() > before.history.updates();
        for (tensor, (got, expected)) in got.iter().zip(after.tensors(role)).enumerate() {
            let machines = [Machine::TWIN, Machine::ADAPTER, Machine::FLUSHING];
            // An adapter may fuse the product that a clipped gradient is with what comes next.
            let gradients = self.clipped[tensor].iter().map(|&g| Near::exactly(g.into()));
            let fused = |g: Near| Near::within(g.value, g.value.abs() * HALF_ULP);
            let steps = machines.map(|machine| {
                let elements = gradients.clone().enumerate();
                let step = training.exact(machine, t, tensor);
                step.limited(elements.map(|(i, g)| (fused(g), before.element(tensor, i))))
            });
            for (i, (&got, &expected)) in got.iter().zip(expected).enumerate() {
                if got.to_bits() == expected.to_bits() || (got.is_nan() && expected.is_nan()) {
                    findings.value(0.0, 0.0);
                    continue;
                }
                let (got, expected) = (f64::from(got), f64::from(expected));
                let what = training.roles()[role];
                let wrong = Wrong { step, what, at: Some((tensor, i)), got, expected };
                let gradient = Near::exactly(self.clipped[tensor][i].into());
                let (from, fused) = (before.element(tensor, i), fused(gradient));
                let near = [(0, gradient), (1, fused), (2, fused)].map(|(k, g)| steps[k].of(g, from)[role]);
                let [twin, adapter, flushing] = near.map(|n| n.error / near[0].unit());
                let off = (got - expected).abs() / near[0].unit();
                let (most, flushed) = (twin + adapter, twin + flushing);
                match moves {
                    false => findings.named(f64::INFINITY, 0.0, wrong),
                    true if off > most && off <= flushed => findings.flushed(),
                    true => findings.named(off, most, wrong),
                }
            }
        }
    }
}

impl Training {
    /// The step of a tensor in f64.
    fn exact(&self, machine: Machine, t: u32, tensor: usize) -> Step {
        let (lr_scale, decay) = self.own(tensor);
        Step::new(machine, self.optimizer, t, lr_scale, decay.unwrap_or(self.optimizer.weight_decay()))
    }
}

/// Steps of the CPU path beside f64, each from what the CPU path has.
pub(crate) fn on_cpu(training: &Training) -> Result<Findings, Failure> {
    let mut state = training.begin()?;
    let mut findings = Findings::default();
    for step in 0..STEPS {
        let case = training.batch(step, &state);
        let before = state.clone();
        state.step(training, &case)?;
        let (case, trace) = unscaled(&case, &before)?;
        let exact = Exact::of(&case);
        let changes = Changes::new(&case, &exact, &trace);
        let t = before.history.updates() + u64::from(!changes.skip());
        let wrong = |what, at, got, expected| Wrong { step, what, at, got, expected };
        let counted = state.history.updates();
        let off = counted.abs_diff(t) as f64;
        findings.named(off, 0.0, wrong("number of updates", None, counted as f64, t as f64));
        for (tensor, elements) in case.tensors.iter().enumerate() {
            let all = (0..elements.data.len())
                .map(|i| (gradient(&changes, &case, tensor, i), before.element(tensor, i)));
            let exact = training.exact(Machine::CPU, t as u32, tensor).limited(all);
            for i in 0..elements.data.len() {
                let from = before.element(tensor, i);
                let near = match changes.skip() {
                    true => from.map(Near::exactly),
                    false => exact.of(gradient(&changes, &case, tensor, i), from),
                };
                let after = state.element(tensor, i);
                for (role, what) in training.roles().iter().enumerate() {
                    let (near, got) = (near[role], after[role]);
                    let wrong = wrong(what, Some((tensor, i)), got, near.value);
                    findings.named(near.off(got), near.most(), wrong);
                }
            }
        }
    }
    Ok(findings)
}

/// The case as a clip without loss scaling sees it, and what the CPU path decides.
pub(crate) fn unscaled(case: &Case, state: &State) -> Result<(Case, Trace), Failure> {
    let mut clip: Clip = case.clip;
    clip.unscale *= f64::from(progress(&state.history).unscale);
    clip.loss_scale = None;
    let case = Case { clip, ..case.clone() };
    let (trace, _) = case.traced()?;
    Ok((case, trace))
}

/// A clipped gradient that is not rounded to 16 bits.
pub(crate) fn gradient(changes: &Changes<'_>, case: &Case, tensor: usize, i: usize) -> Near {
    match changes.element(tensor, i) {
        Expected::Kept => Near::exactly(case.tensors[tensor].data.value(i)),
        Expected::Skipped => Near::exactly(0.0),
        // No product makes anything of 0.
        Expected::Value(value, most) if value != 0.0 && most > 0.0 => {
            Near::within(value, most * Near::exactly(value).unit())
        }
        Expected::Value(value, _) => Near::exactly(value),
    }
}
