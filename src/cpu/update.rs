//! gradient, outcome -> parameter, moments: the twin of `shaders/update_sgd.wgsl`,
//! `shaders/update_momentum.wgsl` and `shaders/update_adam.wgsl`.

use crate::layout::{ADAM, DECOUPLED, EPS_HAT, Hyper, NESTEROV, Outcome, Progress, SKIPPED};

use super::apply;
use super::element::Element;
use super::joint::{Action, Target};

/// Elements whose clipped gradients are kept at once: they stay in the first cache.
const BLOCK: usize = 1024;

/// The constants of one tensor in one step.
#[derive(Clone, Copy)]
pub(super) struct Rates {
    hyper: Hyper,
    share: f32,
    correction: f32,
    second_correction: f32,
    lr: f32,
    weight_decay: f32,
}

impl Rates {
    pub(super) fn new(hyper: &Hyper, progress: &Progress, lr_scale: f32, weight_decay: f32) -> Rates {
        Rates {
            hyper: *hyper,
            share: progress.share,
            correction: progress.correction,
            second_correction: progress.second_correction,
            lr: hyper.lr * lr_scale,
            weight_decay,
        }
    }

    /// Weight decay as a part of the gradient.
    fn penalty(&self) -> f32 {
        if self.hyper.flags & DECOUPLED == 0 { self.weight_decay } else { 0.0 }
    }
}

/// Lets a gradient, which is only read, move a parameter or add to an accumulator.
pub(super) fn act<T: Element>(gradient: &[T], outcome: &Outcome, action: &Action, target: Target<'_>) {
    let Target { parameter, moments: [first, second] } = target;
    let mut clipped = [0.0f32; BLOCK];
    for (at, gradient) in (0..).step_by(BLOCK).zip(gradient.chunks(BLOCK)) {
        let range = at..at + gradient.len();
        let clipped = &mut clipped[..gradient.len()];
        clipped.iter_mut().zip(gradient).for_each(|(c, g)| *c = f32::from_bits(g.f32_bits()));
        apply::apply(clipped, outcome);
        let parameter = &mut parameter[range.clone()];
        let rates = match action {
            Action::Add { begins } => {
                add(clipped, outcome, *begins, parameter);
                continue;
            }
            Action::Update(rates) => rates,
        };
        if rates.hyper.flags & ADAM != 0 {
            dispatch(Adam, clipped, rates, parameter, &mut first[range.clone()], &mut second[range]);
        } else if first.is_empty() {
            dispatch(Plain, clipped, rates, parameter, &mut [], &mut []);
        } else {
            dispatch(Momentum, clipped, rates, parameter, &mut first[range], &mut []);
        }
    }
}

/// The twin of `shaders/accumulate.wgsl`: a segment that is skipped adds nothing.
fn add(clipped: &[f32], outcome: &Outcome, begins: bool, accumulator: &mut [f32]) {
    match (begins, outcome.flags & SKIPPED != 0) {
        (true, true) => accumulator.fill(0.0),
        (true, false) => accumulator.copy_from_slice(clipped),
        (false, true) => {}
        (false, false) => accumulator.iter_mut().zip(clipped).for_each(|(a, g)| *a += g),
    }
}

/// An update rule over slices of one length.
trait Rule: Copy {
    fn run(self, gradient: &[f32], rates: &Rates, parameter: &mut [f32], m: &mut [f32], v: &mut [f32]);
}

#[derive(Clone, Copy)]
struct Plain;
#[derive(Clone, Copy)]
struct Momentum;
#[derive(Clone, Copy)]
struct Adam;

impl Rule for Plain {
    #[inline(always)]
    fn run(self, gradient: &[f32], rates: &Rates, parameter: &mut [f32], _: &mut [f32], _: &mut [f32]) {
        let penalty = rates.penalty();
        for (p, &g) in parameter.iter_mut().zip(gradient) {
            *p -= rates.lr * penalised(g, *p, penalty);
        }
    }
}

impl Rule for Momentum {
    #[inline(always)]
    fn run(self, gradient: &[f32], rates: &Rates, parameter: &mut [f32], m: &mut [f32], _: &mut [f32]) {
        let (penalty, decay) = (rates.penalty(), rates.hyper.decay);
        let nesterov = rates.hyper.flags & NESTEROV != 0;
        for ((p, m), &g) in parameter.iter_mut().zip(m).zip(gradient) {
            let g = penalised(g, *p, penalty);
            *m = decay * *m + rates.share * g;
            *p -= rates.lr * if nesterov { g + decay * *m } else { *m };
        }
    }
}

impl Rule for Adam {
    #[inline(always)]
    fn run(self, gradient: &[f32], rates: &Rates, parameter: &mut [f32], m: &mut [f32], v: &mut [f32]) {
        let Hyper { decay, second_decay, second_share, eps, flags, .. } = rates.hyper;
        let eps = if flags & EPS_HAT != 0 { eps * rates.second_correction } else { eps };
        let penalty = rates.penalty();
        let decayed = if flags & DECOUPLED != 0 { rates.weight_decay } else { 0.0 };
        for (((p, m), v), &g) in parameter.iter_mut().zip(m).zip(v).zip(gradient) {
            let g = penalised(g, *p, penalty);
            *m = decay * *m + rates.share * g;
            *v = second_decay * *v + second_share * g * g;
            let size = v.sqrt() * rates.second_correction + eps;
            // 0 / 0: nothing has ever moved this element.
            let direction = if *m == 0.0 && size == 0.0 { 0.0 } else { *m * rates.correction / size };
            *p -= rates.lr * (direction + decayed * *p);
        }
    }
}

/// A penalty of 0 changes nothing, not even where the parameter is not finite.
#[inline(always)]
fn penalised(gradient: f32, parameter: f32, penalty: f32) -> f32 {
    if penalty == 0.0 { gradient } else { gradient + penalty * parameter }
}

/// The same loop for the widest vectors there are; every operation rounds alike in all.
fn dispatch(
    rule: impl Rule,
    gradient: &[f32],
    rates: &Rates,
    parameter: &mut [f32],
    m: &mut [f32],
    v: &mut [f32],
) {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the feature that the function is compiled for was just detected.
            return unsafe { avx512(rule, gradient, rates, parameter, m, v) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: as above.
            return unsafe { avx2(rule, gradient, rates, parameter, m, v) };
        }
    }
    rule.run(gradient, rates, parameter, m, v);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn avx512(rule: impl Rule, g: &[f32], rates: &Rates, p: &mut [f32], m: &mut [f32], v: &mut [f32]) {
    rule.run(g, rates, p, m, v);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2(rule: impl Rule, g: &[f32], rates: &Rates, p: &mut [f32], m: &mut [f32], v: &mut [f32]) {
    rule.run(g, rates, p, m, v);
}
