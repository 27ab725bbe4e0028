//! gradient, outcome -> parameter, moments: the twin of `shaders/update_sgd.wgsl`,
//! `shaders/update_momentum.wgsl` and `shaders/update_adam.wgsl`.

use crate::layout::{ADAM, DECOUPLED, EPS_HAT, Hyper, KEEP, MULTIPLY, NESTEROV, Outcome, Progress, SKIPPED};

use super::apply;
use super::block::{Values, not_here, with_elements};
use super::element::Element;

/// Elements whose clipped gradients are kept at once: they stay in the first cache.
const BLOCK: usize = 1024;

/// The constants of one tensor in one step.
#[derive(Clone, Copy, Debug)]
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

/// What a gradient does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Action {
    /// It moves a parameter.
    Update(Rates),
    /// It is added to an accumulator, or begins the sum.
    Add { begins: bool },
}

/// Neighbouring elements of a parameter and its moments, or of an accumulator.
#[derive(Debug, Default)]
pub(super) struct Target<'a> {
    pub(super) parameter: &'a mut [f32],
    /// None, one or two of the parameter's length.
    pub(super) moments: [&'a mut [f32]; 2],
}

impl Values<'_> {
    /// Moves a parameter or adds to an accumulator.
    pub(super) fn act(&self, outcome: &Outcome, action: &Action, target: Target<'_>) {
        with_elements!(Values, self, e => act(e, outcome, action, target), _e => not_here());
    }
}

/// Lets a gradient, which is only read, move a parameter or add to an accumulator.
fn act<T: Element>(gradient: &[T], outcome: &Outcome, action: &Action, target: Target<'_>) {
    let Target { parameter, moments: [first, second] } = target;
    let mut block = [0.0f32; BLOCK];
    for (at, gradient) in (0..).step_by(BLOCK).zip(gradient.chunks(BLOCK)) {
        let range = at..at + gradient.len();
        let (gradient, scale) = clipped(gradient, outcome, &mut block[..gradient.len()]);
        let parameter = &mut parameter[range.clone()];
        match action {
            Action::Add { begins } => add(gradient, scale, outcome, *begins, parameter),
            Action::Update(rates) if rates.hyper.flags & ADAM != 0 => {
                let (m, v) = (&mut first[range.clone()], &mut second[range]);
                dispatch(Adam, gradient, scale, rates, parameter, m, v);
            }
            Action::Update(rates) if first.is_empty() => {
                dispatch(Plain, gradient, scale, rates, parameter, &mut [], &mut []);
            }
            Action::Update(rates) => {
                dispatch(Momentum, gradient, scale, rates, parameter, &mut first[range], &mut []);
            }
        }
    }
}

/// The clipped gradient as `f32` and a factor that is still to be multiplied: where the outcome is one
/// factor, elements of `f32` are used where they lie.
fn clipped<'a, T: Element>(gradient: &'a [T], outcome: &Outcome, block: &'a mut [f32]) -> (&'a [f32], f32) {
    let scale = match outcome.action {
        KEEP => Some(1.0),
        // No product of a larger factor may become infinite.
        MULTIPLY if outcome.rescale == 1.0 && outcome.scale <= 1.0 => Some(outcome.scale),
        _ => None,
    };
    if let (Some(scale), Some(bits)) = (scale, T::as_f32_bits(gradient)) {
        return (bytemuck::cast_slice(bits), scale);
    }
    T::widen(gradient, block);
    if scale.is_none() {
        apply::apply(block, outcome);
    }
    (block, scale.unwrap_or(1.0))
}

/// The twin of `shaders/accumulate.wgsl`: a segment that is skipped adds nothing.
fn add(gradient: &[f32], scale: f32, outcome: &Outcome, begins: bool, accumulator: &mut [f32]) {
    let pairs = accumulator.iter_mut().zip(gradient);
    match (begins, outcome.flags & SKIPPED != 0) {
        (true, true) => accumulator.fill(0.0),
        (false, true) => {}
        (true, false) => pairs.for_each(|(a, g)| *a = g * scale),
        (false, false) => pairs.for_each(|(a, g)| {
            let g = g * scale;
            *a = within(*a + g, a.is_finite() & g.is_finite());
        }),
    }
}

/// The largest `f32` instead of infinity, where it came of what is finite.
#[inline(always)]
fn within(value: f32, finite: bool) -> f32 {
    if finite & (value.abs() > f32::MAX) { f32::MAX.copysign(value) } else { value }
}

/// An update rule over slices of one length.
trait Rule: Copy {
    fn run(self, g: &[f32], scale: f32, rates: &Rates, p: &mut [f32], m: &mut [f32], v: &mut [f32]);
}

#[derive(Clone, Copy)]
struct Plain;
#[derive(Clone, Copy)]
struct Momentum;
#[derive(Clone, Copy)]
struct Adam;

impl Rule for Plain {
    #[inline(always)]
    fn run(self, g: &[f32], scale: f32, rates: &Rates, p: &mut [f32], _: &mut [f32], _: &mut [f32]) {
        let penalty = rates.penalty();
        for (p, &g) in p.iter_mut().zip(g) {
            let (g, finite) = (g * scale, g.is_finite() & p.is_finite());
            let direction = penalised(g, *p, penalty, finite);
            *p = within(*p - within(rates.lr * direction, finite), finite);
        }
    }
}

impl Rule for Momentum {
    #[inline(always)]
    fn run(self, g: &[f32], scale: f32, rates: &Rates, p: &mut [f32], m: &mut [f32], _: &mut [f32]) {
        let (penalty, decay) = (rates.penalty(), rates.hyper.decay);
        let nesterov = rates.hyper.flags & NESTEROV != 0;
        for ((p, m), &g) in p.iter_mut().zip(m).zip(g) {
            let finite = g.is_finite() & p.is_finite();
            let g = penalised(g * scale, *p, penalty, finite);
            *m = within(decay * *m + rates.share * g, finite);
            let direction = if nesterov { within(g + decay * *m, finite) } else { *m };
            *p = within(*p - within(rates.lr * direction, finite), finite);
        }
    }
}

impl Rule for Adam {
    #[inline(always)]
    fn run(self, g: &[f32], scale: f32, rates: &Rates, p: &mut [f32], m: &mut [f32], v: &mut [f32]) {
        let Hyper { decay, second_decay, second_share, eps, flags, .. } = rates.hyper;
        let eps = if flags & EPS_HAT != 0 { eps * rates.second_correction } else { eps };
        let penalty = rates.penalty();
        let decayed = if flags & DECOUPLED != 0 { rates.weight_decay } else { 0.0 };
        for (((p, m), v), &g) in p.iter_mut().zip(m).zip(v).zip(g) {
            let finite = g.is_finite() & p.is_finite();
            let within = |value: f32| within(value, finite);
            let g = penalised(g * scale, *p, penalty, finite);
            *m = within(decay * *m + rates.share * g);
            *v = within(second_decay * *v + second_share * g * g);
            let size = within(v.sqrt() * rates.second_correction + eps);
            // 0 / 0: nothing has ever moved this element.
            let still = *m == 0.0 && size == 0.0;
            let direction = if still { 0.0 } else { within(within(*m * rates.correction) / size) };
            *p = within(*p - within(rates.lr * within(direction + decayed * *p)));
        }
    }
}

/// A penalty of 0 changes nothing, not even where the parameter is not finite.
#[inline(always)]
fn penalised(gradient: f32, parameter: f32, penalty: f32, finite: bool) -> f32 {
    if penalty == 0.0 { gradient } else { within(gradient + penalty * parameter, finite) }
}

/// The same loop for the widest vectors there are; every operation rounds alike in all.
fn dispatch(
    rule: impl Rule,
    g: &[f32],
    scale: f32,
    rates: &Rates,
    p: &mut [f32],
    m: &mut [f32],
    v: &mut [f32],
) {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the feature that the function is compiled for was just detected.
            return unsafe { avx512(rule, g, scale, rates, p, m, v) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: as above.
            return unsafe { avx2(rule, g, scale, rates, p, m, v) };
        }
    }
    rule.run(g, scale, rates, p, m, v);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn avx512(
    rule: impl Rule,
    g: &[f32],
    scale: f32,
    rates: &Rates,
    p: &mut [f32],
    m: &mut [f32],
    v: &mut [f32],
) {
    rule.run(g, scale, rates, p, m, v);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2(rule: impl Rule, g: &[f32], scale: f32, rates: &Rates, p: &mut [f32], m: &mut [f32], v: &mut [f32]) {
    rule.run(g, scale, rates, p, m, v);
}
