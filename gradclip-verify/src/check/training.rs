//! Optimiser steps that `verify` makes: several on each set, with gradients of other magnitudes in each.

use std::fmt;

use gradclip::cpu::{self, Moments};
use gradclip::layout::{Progress, Tally};
use gradclip::{
    Adam, Adopt, Clip, ClipError, History, Lars, Lion, LossScale, NAdam, NonFinite, Optimizer, RAdam, Rule,
    Sgd, Spam, TrustRatio, Units, UpdateLimit,
};

use crate::budget::TRAINING_STEPS as STEPS;
use crate::failure::Failure;
use crate::inputs::values::Values;
use crate::inputs::{Case, Elements, Random, Recipe, Sizes, Threshold, placing};
use crate::oracle::optimizer::momentum_product;
use crate::tensor::{Element, Tensor, steps};

/// Nothing at all, a scalar, odd lengths, and a matrix to cut into units.
const SHAPES: Sizes = Sizes::Shapes(&[&[7], &[0, 4], &[], &[65, 33], &[3, 5]]);
/// More than a chunk, which ends within a word of two halves.
const LONG: Sizes = Sizes::Shapes(&[&[7], &[5], &[16_385], &[1], &[2]]);
/// Factor of the learning rate and weight decay of each tensor.
const OWN: [(f64, Option<f64>); 5] =
    [(1.0, None), (1.0, None), (0.0, None), (0.7, Some(0.0)), (2.0, Some(0.2))];
/// Gradients in buffers of their own take other kernels, which are long to compile: f32 only.
pub(crate) const LAYOUTS: [(Elements, bool); 5] = [
    (Elements::All(Element::F32), true),
    (Elements::All(Element::F16), true),
    (Elements::All(Element::Bf16), true),
    (Elements::Mixed, true),
    (Elements::All(Element::F32), false),
];

/// An optimiser with all that its gradients are.
#[derive(Clone, Debug)]
pub(crate) struct Training {
    pub(crate) optimizer: Optimizer,
    pub(crate) clip: Clip,
    sizes: Sizes,
    elements: Elements,
    pub(crate) arena: bool,
    /// What parameters are rounded to, where those that are compared are their masters.
    pub(crate) half: Option<Element>,
    values: [Values; STEPS],
    /// Steps before those compared, as far as the optimiser's corrections know.
    updates: u32,
    seed: u64,
}

/// By the kernels that they take.
fn optimizers() -> [Vec<Optimizer>; 13] {
    let sgd = Sgd::new(0.1);
    let (adam, adamw, lion) = (Adam::new(0.01), Adam::adamw(0.01), Lion::new(0.01));
    let (nadam, radam, adopt) = (NAdam::new(0.01), RAdam::new(0.01), Adopt::new(0.01));
    let momentum = [
        sgd.momentum(0.9),
        sgd.momentum(0.8).dampening(0.3).weight_decay(0.01),
        sgd.momentum(0.9).nesterov(true).weight_decay(0.05),
    ];
    let adams = [
        adam,
        adam.betas(0.8, 0.95).eps(1e-3).weight_decay(0.1),
        adamw.weight_decay(0.1),
        adam.eps(1e-4).eps_hat(true),
        adam.betas(0.0, 0.0),
        adamw.betas(0.9, 0.99).eps(0.0),
    ];
    [
        [sgd, sgd.weight_decay(0.05)].map(Optimizer::from).to_vec(),
        momentum.map(Optimizer::from).to_vec(),
        adams.map(Optimizer::from).to_vec(),
        [adam.betas(0.8, 0.5), adamw.betas(0.9, 0.6).weight_decay(0.1).maximize(true)]
            .map(|adam| Optimizer::from(adam.amsgrad(true)))
            .to_vec(),
        [nadam, nadam.betas(0.8, 0.95).momentum_decay(0.1).decoupled(true).weight_decay(0.1).maximize(true)]
            .map(Optimizer::from)
            .to_vec(),
        // Of the first five steps none is rectified.
        [radam, radam.betas(0.8, 0.95).eps(1e-4).decoupled(true).weight_decay(0.1).maximize(true)]
            .map(Optimizer::from)
            .to_vec(),
        [
            adopt,
            adopt.betas(0.8, 0.95).eps(1e-3).decoupled(true).weight_decay(0.1).maximize(true),
            adopt.betas(0.5, 0.9).eps(1e-2).weight_decay(0.1).clipping(false),
        ]
        .map(Optimizer::from)
        .to_vec(),
        [lion, lion.betas(0.95, 0.98).weight_decay(0.1).maximize(true)].map(Optimizer::from).to_vec(),
        [
            Lars::new(0.1),
            Lars::new(0.1).momentum(0.5).nesterov(true).weight_decay(0.05).maximize(true),
            Lars::new(0.1).weight_decay(0.1).norms_apart(true),
        ]
        .map(Optimizer::from)
        .to_vec(),
        [
            Spam::new(0.01),
            Spam::new(0.01).interval(4).warmup(3).delay(1).threshold(2.0).weight_decay(0.1),
            Spam::new(0.01).interval(0).delay(0).threshold(0.5).maximize(true),
        ]
        .map(Optimizer::from)
        .to_vec(),
        // The second moment falls, so that the largest one stays behind.
        // Adam's kernel, with a factor that others measure.
        [
            Adam::lamb(0.01),
            Adam::lamb(0.01)
                .weight_decay(0.1)
                .limit(TrustRatio::default().most(1.0).eps(1e-3))
                .maximize(true),
        ]
        .map(Optimizer::from)
        .to_vec(),
        [adam.limit(UpdateLimit::Rms(0.5)), adamw.weight_decay(0.1).limit(UpdateLimit::Rms(0.1))]
            .map(Optimizer::from)
            .to_vec(),
        [Adam::stable_adamw(0.01), adam.weight_decay(0.05).limit(UpdateLimit::Rate)]
            .map(Optimizer::from)
            .to_vec(),
    ]
}

/// Limits that gradients about 1 exceed, and those about 1e-3 do not. Value clipping takes kernels of
/// its own.
pub(crate) fn clips() -> Vec<Clip> {
    let tensors = Clip::per_tensor_norm(1.0);
    vec![
        Clip::global_norm(10.0),
        Clip::global_norm(10.0).on_non_finite(NonFinite::Zero).eps(1e-6),
        tensors.on_non_finite(NonFinite::Sanitize).unscale(0.3),
        tensors.total(5.0),
        Clip::per_group_norm(1.0).on_non_finite(NonFinite::Sanitize),
        Clip::per_unit_norm(0.5, Units::OutputFirst).on_non_finite(NonFinite::Sanitize),
        Clip::agc(0.05, Units::OutputLast),
        Clip::global_norm(2.0).loss_scale(LossScale::default().initial(8.0).backoff(0.25).interval(2)),
        Clip::block_rms(0.1).on_non_finite(NonFinite::Nan),
        Clip::sign(0.5),
        Clip::normalize(3.0),
        Clip::measure().on_non_finite(NonFinite::Sanitize),
        Clip::value(0.25),
    ]
}

/// Every clip with every layout for every kernel; optimisers, values and numbers of steps take turns.
pub(crate) fn trainings() -> Vec<Training> {
    use Values::{Both, OneInf, OneNan, Spread, Subnormal, Zeros};
    let values = [
        [Spread(1.0), Spread(1e-3), Subnormal, OneInf, Spread(1.0)],
        [Zeros, Spread(1.0), Spread(1e-3), Both, Spread(100.0)],
        [OneNan, Spread(1.0), Spread(100.0), Zeros, Spread(1e-3)],
        [Subnormal, OneInf, Spread(1e-3), Subnormal, Spread(1.0)],
        [Spread(100.0), Zeros, Spread(1e-10), Spread(1.0), OneNan],
    ];
    let mut trainings = Vec::new();
    for optimizers in optimizers() {
        for (layout, (elements, arena)) in LAYOUTS.into_iter().enumerate() {
            for clip in clips().into_iter().filter(|c| few(c, elements, arena)) {
                let turn = trainings.len();
                // The number of clips is one of those of optimisers, times something.
                let optimizer = optimizers[(turn + layout) % optimizers.len()];
                // Where eps is 0, no step is defined by first gradients whose squares underflow.
                let rooted = matches!(optimizer, Optimizer::Adam(adam) if adam.eps == 0.0);
                let values = values[(turn + turn / 5) % if rooted { 3 } else { 5 }];
                trainings.push(Training {
                    optimizer,
                    clip,
                    sizes: if turn % 7 == 5 { LONG } else { SHAPES },
                    elements,
                    arena,
                    half: half(turn).filter(|_| may_have_masters(&clip, &optimizer, arena)),
                    values,
                    updates: [0, 0, 0, 998, 0, 0, 123_456][turn % 7],
                    seed: 30_000 + turn as u64 * STEPS as u64,
                });
            }
        }
    }
    trainings
}

/// Every second training of those that may has masters, of both types in turn.
fn half(turn: usize) -> Option<Element> {
    [None, Some(Element::Bf16), None, Some(Element::F16)][turn % 4]
}

/// Norms of parameters are those of what is rounded. Three moments and a master take more bindings than every device has.
fn may_have_masters(clip: &Clip, optimizer: &Optimizer, arena: bool) -> bool {
    arena && !matches!(clip.rule, Rule::Agc { .. }) && optimizer.moments() < 3
}

/// Value clipping with one layout alone.
pub(crate) fn few(clip: &Clip, elements: Elements, arena: bool) -> bool {
    clip.rule != Rule::Value || (arena && matches!(elements, Elements::All(Element::F32)))
}

impl Training {
    /// The shader that moves the parameters.
    pub(crate) fn shader(&self) -> &'static str {
        match (&self.optimizer, self.optimizer.moments()) {
            (Optimizer::NAdam(_), _) => "update_nadam",
            (Optimizer::RAdam(_), _) => "update_radam",
            (Optimizer::Adopt(_), _) => "update_adopt",
            (Optimizer::Lion(_), _) => "update_lion",
            (Optimizer::Lars(_), _) => "update_lars",
            (Optimizer::Spam(_), _) => "update_spam",
            (Optimizer::Adam(_), 3) => "update_amsgrad",
            (Optimizer::Adam(_), _) => "update_adam",
            (_, 0) => "update_sgd",
            _ => "update_momentum",
        }
    }

    /// What the tensors of the state are.
    pub(crate) fn roles(&self) -> &'static [&'static str] {
        match self.optimizer.moments() {
            0 => &["parameter"],
            1 => &["parameter", "momentum"],
            2 => &["parameter", "first moment", "second moment"],
            _ => &["parameter", "first moment", "second moment", "largest second moment"],
        }
    }

    /// Factor of the learning rate, weight decay.
    pub(crate) fn own(&self, tensor: usize) -> (f64, Option<f64>) {
        OWN[tensor % OWN.len()]
    }

    /// The gradients of a step.
    pub(crate) fn batch(&self, step: usize, state: &State) -> Case {
        let values = self.values[step];
        let mut case = batch(self.sizes, self.elements, values, self.clip, self.seed + step as u64);
        case.placing = placing(self.arena);
        for (t, (tensor, parameter)) in case.tensors.iter_mut().zip(&state.parameters).enumerate() {
            (tensor.lr_scale, tensor.weight_decay) = self.own(t);
            tensor.parameter = Some(parameter.into());
        }
        case
    }

    /// Parameters before the first step. Some are subnormal, where no weight decay makes them smaller.
    pub(crate) fn begin(&self) -> Result<State, Failure> {
        let mut random = Random(self.seed ^ 0xffff);
        let sizes = batch(self.sizes, self.elements, Values::Zeros, self.clip, 0);
        let parameter = |(t, tensor): (usize, &Tensor)| {
            let mut elements: Vec<f32> = (0..tensor.data.len()).map(|_| random.unit()).collect();
            let tiny = elements.iter_mut().step_by(11).filter(|_| self.own(t).1 == Some(0.0));
            tiny.for_each(|e| *e *= 1e-39);
            elements
        };
        let parameters: Vec<Vec<f32>> = sizes.tensors.iter().enumerate().map(parameter).collect();
        let zeros = |p: &Vec<f32>| vec![vec![0.0; p.len()]; self.optimizer.moments()];
        let moments = Moments { tensors: parameters.iter().map(zeros).collect() };
        let product = match &self.optimizer {
            Optimizer::NAdam(nadam) => momentum_product(nadam, self.updates).value as f32,
            _ => 1.0,
        };
        Ok(State { parameters, moments, history: history(&self.clip, self.updates, product)? })
    }
}

/// Gradients under a clip that is what it is, whatever they are.
pub(crate) fn batch(sizes: Sizes, elements: Elements, values: Values, clip: Clip, seed: u64) -> Case {
    let threshold = Threshold::Fixed(clip.threshold as f32);
    let mut plain = clip;
    (plain.rule, plain.total) = (Rule::Norm, None);
    let case = Recipe { sizes, elements, values, arena: true, threshold, clip: plain, seed }.cook();
    Case { clip: clip.lossy_unscale(true), ..case }
}

/// As it is after some optimiser steps, and with this product of NAdam's momenta.
pub(crate) fn history(clip: &Clip, updates: u32, momentum_product: f32) -> Result<History, ClipError> {
    let mut bytes = History::default().to_bytes();
    // Saved histories end with whether the loss is scaled, tally and progress, where thresholds are fixed.
    let at = bytes.len() - size_of::<Progress>();
    let scaled = at - size_of::<Tally>() - size_of::<u32>();
    let scale = clip.loss_scale.map_or(1.0, |s| s.initial);
    let known = progress(&History::default());
    let begin = Progress { scale, unscale: 1.0 / scale, updates, momentum_product, ..known };
    bytes[at..].copy_from_slice(bytemuck::bytes_of(&begin));
    bytes[scaled] = u8::from(clip.loss_scale.is_some());
    History::from_bytes(&bytes)
}

/// Of a history without adaptive thresholds.
pub(crate) fn progress(history: &History) -> Progress {
    let bytes = history.to_bytes();
    bytemuck::pod_read_unaligned(&bytes[bytes.len() - size_of::<Progress>()..])
}

/// What steps change, on the CPU path.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) parameters: Vec<Vec<f32>>,
    pub(crate) moments: Moments,
    pub(crate) history: History,
}

impl State {
    pub(crate) fn step(&mut self, training: &Training, case: &Case) -> Result<(), Failure> {
        let mut tensors = case.tensors.clone();
        let State { moments, history, .. } = self;
        cpu::step(&mut steps(&mut tensors), &training.clip, training.optimizer, history, moments)?;
        let moved = tensors.into_iter().filter_map(|t| t.parameter).map(|p| p.floats());
        self.parameters = moved.collect();
        Ok(())
    }

    /// The tensors of a role: parameters, then moments.
    pub(crate) fn tensors(&self, role: usize) -> Vec<&Vec<f32>> {
        let moments = self.moments.tensors.iter();
        if role == 0 { self.parameters.iter().collect() } else { moments.map(|m| &m[role - 1]).collect() }
    }

    /// Puts tensors there.
    pub(crate) fn take(&mut self, role: usize, tensors: Vec<Vec<f32>>) {
        match role {
            0 => self.parameters = tensors,
            _ => self.moments.tensors.iter_mut().zip(tensors).for_each(|(m, new)| m[role - 1] = new),
        }
    }

    /// Element `i` of a tensor of each role; 0 where there is none.
    pub(crate) fn element(&self, tensor: usize, i: usize) -> [f64; 4] {
        let moment = |k: usize| self.moments.tensors[tensor].get(k).map_or(0.0, |m| f64::from(m[i]));
        [self.parameters[tensor][i].into(), moment(0), moment(1), moment(2)]
    }
}

impl fmt::Display for Training {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Training { optimizer, clip, sizes, elements, arena, values, updates, .. } = self;
        let Clip { rule, scope, threshold, total, non_finite, unscale, loss_scale, .. } = clip;
        let buffers = if *arena { "one buffer" } else { "a buffer each" };
        write!(f, "{optimizer:?} after {updates} steps, {sizes:?} {elements:?} {values:?}, {buffers}, ")?;
        write!(f, "{rule:?}, {scope:?}, threshold {threshold}, total {total:?}, unscale {unscale}, ")?;
        write!(f, "{loss_scale:?}, {non_finite:?}")
    }
}

#[cfg(test)]
mod tests {
    use gradclip::Scope;

    use super::*;

    /// Rotation must not leave out what the lists promise.
    #[test]
    fn every_optimizer_meets_every_layout_policy_and_course() {
        let trainings = trainings();
        for optimizer in optimizers().concat() {
            let seen = |what: &str, test: &dyn Fn(&Training) -> bool| {
                let any = trainings.iter().any(|t| t.optimizer == optimizer && test(t));
                assert!(any, "{what}: {optimizer:?}");
            };
            LAYOUTS.iter().for_each(|(_, arena)| seen("layout", &|t| t.arena == *arena));
            for policy in [NonFinite::Skip, NonFinite::Sanitize] {
                let offending = |v: &Values| !v.non_finite().is_empty();
                seen("policy", &|t| t.clip.non_finite == policy && t.values.iter().any(offending));
            }
            seen("begun", &|t| t.updates > 0);
            seen("new", &|t| t.updates == 0);
            seen("units", &|t| matches!(t.clip.scope, Scope::Unit(_)));
            seen("long", &|t| matches!(t.sizes, Sizes::Shapes(shapes) if shapes[2] == [16_385]));
        }
        assert!(clips().iter().all(|c| c.validate().is_ok()));
    }
}
