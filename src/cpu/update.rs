//! gradient, outcome -> parameter, moments: the twin of the `shaders/update_*.wgsl`.

use crate::layout::{
    ADAM, ADOPT, AMSGRAD, CLIPS_UPDATE, DECOUPLED, EPS_HAT, Hyper, KEEP, LARS, LIMITS_RMS, LION, MAXIMIZE,
    MULTIPLY, NADAM, NESTEROV, Outcome, Progress, RADAM, RATIOS, SKIPPED, SPAM,
};

use super::apply;
use super::block::{Values, not_here, with_elements};
use super::element::Element;
use super::lanes::{ByLanes, Lanes, by_lanes};
use super::parameter::{Chance, ParameterMut, split};

/// Elements whose clipped gradients are kept at once: they stay in the first cache.
const BLOCK: usize = 1024;

/// The constants of one tensor in one step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rates {
    pub(super) hyper: Hyper,
    share: f32,
    correction: f32,
    second_correction: f32,
    gradient_correction: f32,
    lr: f32,
    pub(super) weight_decay: f32,
    /// What its update is multiplied by.
    pub(super) ratio: f32,
    chance: Chance,
}

impl Rates {
    /// `seed` is that of what is rounded by chance.
    pub(super) fn new(
        hyper: &Hyper,
        progress: &Progress,
        (lr_scale, weight_decay): (f32, f32),
        seed: u64,
    ) -> Rates {
        Rates {
            hyper: *hyper,
            share: progress.share,
            correction: progress.correction,
            second_correction: progress.second_correction,
            gradient_correction: progress.gradient_correction,
            lr: hyper.lr * lr_scale,
            weight_decay,
            ratio: 1.0,
            chance: Chance { seed, step: progress.updates },
        }
    }

    /// The same for rows of a table: eps before the second moment is corrected, as SparseAdam has it.
    pub(super) fn by_rows(self) -> Rates {
        let hyper = Hyper { flags: self.hyper.flags | EPS_HAT, ..self.hyper };
        Rates { hyper, ..self }
    }

    /// Weight decay as a part of the gradient.
    pub(super) fn penalty(&self) -> f32 {
        if self.hyper.flags & DECOUPLED == 0 { self.weight_decay } else { 0.0 }
    }

    /// Weight decay as a part of the direction.
    pub(super) fn decay(&self) -> f32 {
        if self.hyper.flags & DECOUPLED != 0 { self.weight_decay } else { 0.0 }
    }

    /// The factor of a gradient: -1 where the step goes up.
    pub(super) fn sign(&self) -> f32 {
        if self.hyper.flags & MAXIMIZE != 0 { -1.0 } else { 1.0 }
    }

    /// What is added to the root of a corrected second moment.
    pub(super) fn eps(&self) -> f32 {
        let Hyper { eps, flags, .. } = self.hyper;
        if flags & EPS_HAT != 0 { eps * self.second_correction } else { eps }
    }

    /// The moments that a gradient leaves.
    #[inline(always)]
    pub(super) fn moments(&self, [m, v]: [f32; 2], g: f32, finite: bool) -> [f32; 2] {
        let Hyper { decay, second_decay, second_share, .. } = self.hyper;
        [within(decay * m + self.share * g, finite), within(second_decay * v + second_share * g * g, finite)]
    }

    /// The root of a second moment, corrected.
    #[inline(always)]
    pub(super) fn root(&self, second: f32) -> f32 {
        second.sqrt() * self.second_correction
    }

    /// A first moment, corrected.
    #[inline(always)]
    pub(super) fn corrected(&self, first: f32, finite: bool) -> f32 {
        within(first * self.correction, finite)
    }

    /// Steps since SPAM last forgot moments, or since the first step; whether it does so in this one, and whether it limits elements.
    fn spam(&self) -> (bool, bool) {
        let Hyper { limit, reset_interval, limit_delay, .. } = self.hyper;
        let t = self.chance.step;
        let since = if reset_interval == 0 { t } else { t % reset_interval };
        (reset_interval != 0 && since == 0, limit < f32::INFINITY && t.min(since) >= limit_delay)
    }
}

/// 0 / 0 is 0: nothing has ever moved this element.
#[inline(always)]
pub(super) fn quotient(corrected: f32, size: f32, still: bool, finite: bool) -> f32 {
    if still { 0.0 } else { within(corrected / size, finite) }
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
    pub(super) parameter: ParameterMut<'a>,
    /// None to three of the parameter's length.
    pub(super) moments: [&'a mut [f32]; 3],
    /// Number of the first element in its tensor.
    pub(super) first: u64,
}

impl<'a> Target<'a> {
    /// A row of a table, of which those before and this one are taken off; row `k` of the gradient.
    pub(super) fn row(&mut self, row: usize, width: usize, k: usize) -> Target<'a> {
        let taken = self.first as usize;
        self.split(row * width - taken);
        let own = self.split(width);
        // Units are told by places in the gradient.
        Target { first: (k * width) as u64, ..own }
    }

    /// Takes the first `len` elements off, or all where there are fewer.
    pub(super) fn split(&mut self, len: usize) -> Target<'a> {
        let first = self.first;
        self.first += len as u64;
        let moments = self.moments.each_mut().map(|moment| split(moment, len));
        Target { parameter: self.parameter.split(len), moments, first }
    }
}

impl Values<'_> {
    /// Moves a parameter or adds to an accumulator.
    pub(super) fn act(&self, outcome: &Outcome, action: &Action, target: Target<'_>) {
        with_elements!(Values, self, e => act(e, outcome, action, target), _e => not_here());
    }
}

/// Lets a gradient, which is only read, move a parameter or add to an accumulator.
fn act<T: Element>(gradient: &[T], outcome: &Outcome, action: &Action, mut target: Target<'_>) {
    let (mut block, mut room) = ([0.0f32; BLOCK], [0.0f32; BLOCK]);
    for gradient in gradient.chunks(BLOCK) {
        let Target { parameter, moments, first } = target.split(gradient.len());
        let (gradient, scale) = clipped(gradient, outcome, &mut block[..gradient.len()]);
        match action {
            Action::Add { begins } => {
                let (skipped, begins) = (outcome.flags & SKIPPED != 0, *begins);
                let sum =
                    |accumulator: &mut [f32]| by_lanes(Add { gradient, scale, skipped, begins, accumulator });
                parameter.change(first, Chance::default(), &mut room, sum);
            }
            Action::Update(rates) => {
                let scale = scale * rates.sign();
                let update =
                    |parameter: &mut [f32]| update(Operands { gradient, scale, parameter, moments }, rates);
                parameter.change(first, rates.chance, &mut room, update);
            }
        }
    }
}

fn update(operands: Operands<'_>, rates: &Rates) {
    match rates.hyper.flags & (ADAM | AMSGRAD | NADAM | RADAM | SPAM | LION | ADOPT | LARS) {
        0 if operands.moments[0].is_empty() => dispatch(Plain, operands, rates),
        0 => dispatch(Momentum, operands, rates),
        LION => dispatch(Lion, operands, rates),
        ADOPT => dispatch(Adopt, operands, rates),
        LARS => dispatch(Lars, operands, rates),
        ADAM if rates.hyper.flags & RATIOS != 0 => dispatch(Adam::<RATIOS>, operands, rates),
        ADAM => dispatch(Adam::<0>, operands, rates),
        flags if flags & NADAM != 0 => dispatch(Adam::<NADAM>, operands, rates),
        flags if flags & RADAM != 0 => dispatch(Adam::<RADAM>, operands, rates),
        flags if flags & SPAM != 0 => dispatch(Adam::<SPAM>, operands, rates),
        _ => dispatch(Adam::<AMSGRAD>, operands, rates),
    }
}

/// The clipped gradient as `f32` and a factor that is still to be multiplied: where the outcome is one
/// factor, elements of `f32` are used where they lie.
pub(super) fn clipped<'a, T: Element>(
    gradient: &'a [T],
    outcome: &Outcome,
    block: &'a mut [f32],
) -> (&'a [f32], f32) {
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
struct Add<'a> {
    gradient: &'a [f32],
    /// Factor of the gradient.
    scale: f32,
    skipped: bool,
    begins: bool,
    accumulator: &'a mut [f32],
}

impl ByLanes for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Add { gradient, scale, skipped, begins, accumulator } = self;
        let pairs = accumulator.iter_mut().zip(gradient);
        match (begins, skipped) {
            (true, true) => accumulator.fill(0.0),
            (false, true) => {}
            (true, false) => pairs.for_each(|(a, g)| *a = g * scale),
            (false, false) => pairs.for_each(|(a, g)| {
                let g = g * scale;
                *a = within(*a + g, a.is_finite() & g.is_finite());
            }),
        }
    }
}

/// The largest `f32` instead of infinity, where it came of what is finite.
#[inline(always)]
pub(super) fn within(value: f32, finite: bool) -> f32 {
    if finite & (value.abs() > f32::MAX) { f32::MAX.copysign(value) } else { value }
}

/// Slices of one length, but for the moments that a rule does not have.
struct Operands<'a> {
    gradient: &'a [f32],
    /// Factor of the gradient.
    scale: f32,
    parameter: &'a mut [f32],
    moments: [&'a mut [f32]; 3],
}

/// An update rule.
trait Rule: Copy {
    fn run(self, operands: Operands<'_>, rates: &Rates);
}

#[derive(Clone, Copy)]
struct Plain;
#[derive(Clone, Copy)]
struct Momentum;
/// With a flag of [`Hyper`] for one derived from it, or 0.
#[derive(Clone, Copy)]
struct Adam<const KIND: u32>;
#[derive(Clone, Copy)]
struct Lion;
#[derive(Clone, Copy)]
struct Adopt;
#[derive(Clone, Copy)]
struct Lars;

impl Rule for Plain {
    #[inline(always)]
    fn run(self, Operands { gradient, scale, parameter, .. }: Operands<'_>, rates: &Rates) {
        let penalty = rates.penalty();
        for (p, &g) in parameter.iter_mut().zip(gradient) {
            let (g, finite) = (g * scale, g.is_finite() & p.is_finite());
            let direction = penalised(g, *p, penalty, finite);
            *p = moved(*p, within(rates.lr * direction, finite), finite);
        }
    }
}

impl Rule for Momentum {
    #[inline(always)]
    fn run(self, Operands { gradient, scale, parameter, moments: [m, ..] }: Operands<'_>, rates: &Rates) {
        let (penalty, decay) = (rates.penalty(), rates.hyper.decay);
        let nesterov = rates.hyper.flags & NESTEROV != 0;
        for ((p, m), &g) in parameter.iter_mut().zip(m).zip(gradient) {
            let finite = g.is_finite() & p.is_finite();
            let g = penalised(g * scale, *p, penalty, finite);
            *m = within(decay * *m + rates.share * g, finite);
            let direction = if nesterov { within(g + decay * *m, finite) } else { *m };
            *p = moved(*p, within(rates.lr * direction, finite), finite);
        }
    }
}

impl Rule for Lion {
    #[inline(always)]
    fn run(self, Operands { gradient, scale, parameter, moments: [m, ..] }: Operands<'_>, rates: &Rates) {
        let Hyper { decay, share, second_decay, second_share, .. } = rates.hyper;
        for ((p, m), &g) in parameter.iter_mut().zip(m).zip(gradient) {
            let finite = g.is_finite() & p.is_finite();
            let within = |value: f32| within(value, finite);
            let g = g * scale;
            let mean = within(decay * *m + share * g);
            *m = within(second_decay * *m + second_share * g);
            let sign = if mean == 0.0 || mean.is_nan() { mean } else { 1f32.copysign(mean) };
            let direction = decayed(sign, *p, rates.weight_decay, finite);
            *p = moved(*p, within(rates.lr * direction), finite);
        }
    }
}

impl Rule for Lars {
    #[inline(always)]
    fn run(self, Operands { gradient, scale, parameter, moments: [m, ..] }: Operands<'_>, rates: &Rates) {
        let (penalty, decay, rate) = (rates.weight_decay, rates.hyper.decay, rates.lr * rates.ratio);
        let nesterov = rates.hyper.flags & NESTEROV != 0;
        for ((p, m), &g) in parameter.iter_mut().zip(m).zip(gradient) {
            let finite = g.is_finite() & p.is_finite();
            let along = within(rate * penalised(g * scale, *p, penalty, finite), finite);
            *m = within(decay * *m + along, finite);
            *p = moved(*p, if nesterov { within(decay * *m + along, finite) } else { *m }, finite);
        }
    }
}

impl Rule for Adopt {
    #[inline(always)]
    fn run(self, Operands { gradient, scale, parameter, moments: [m, v, _] }: Operands<'_>, rates: &Rates) {
        let Hyper { decay: first_decay, share, second_decay, second_share, eps, flags, .. } = rates.hyper;
        let (begins, penalty) = (rates.chance.step == 1, rates.penalty());
        let decay = if flags & DECOUPLED != 0 { rates.weight_decay } else { 0.0 };
        let bound = match flags & CLIPS_UPDATE {
            0 => f32::INFINITY,
            _ => (rates.chance.step.saturating_sub(1) as f32).sqrt().sqrt(),
        };
        for (((p, m), v), &g) in parameter.iter_mut().zip(m).zip(v).zip(gradient) {
            let finite = g.is_finite() & p.is_finite();
            let within = |value: f32| within(value, finite);
            let g = penalised(g * scale, *p, penalty, finite);
            // Nothing is divided by before there is a second moment.
            if begins {
                *v = within(g * g);
                continue;
            }
            let size = within(v.sqrt()).max(eps);
            let quotient = if g == 0.0 && size == 0.0 { 0.0 } else { within(g / size) };
            let along = if quotient.abs() > bound { bound.copysign(quotient) } else { quotient };
            *m = within(first_decay * *m + share * along);
            *p = moved(*p, within(rates.lr * decayed(*m, *p, decay, finite)), finite);
            *v = within(second_decay * *v + second_share * g * g);
        }
    }
}

impl<const KIND: u32> Rule for Adam<KIND> {
    #[inline(always)]
    fn run(self, Operands { gradient, scale, parameter, moments: [m, v, x] }: Operands<'_>, rates: &Rates) {
        let (eps, penalty, decay) = (rates.eps(), rates.penalty(), rates.decay());
        let divides = rates.second_correction != 0.0;
        // A limit of the root of a mean square is one of the direction without the decay.
        let alone = rates.hyper.flags & LIMITS_RMS != 0;
        let (own_ratio, ratio) = if alone { (rates.ratio, 1.0) } else { (1.0, rates.ratio) };
        let times = |value: f32, ratio: f32, finite| match KIND {
            RATIOS => within(value * ratio, finite),
            _ => value,
        };
        let (forgets, limits) = if KIND == SPAM { rates.spam() } else { (false, false) };
        // Of one length with the others, so that no index is checked.
        let x = if KIND == AMSGRAD { &mut x[..gradient.len()] } else { x };
        for (i, (((p, m), v), &g)) in parameter.iter_mut().zip(m).zip(v).zip(gradient).enumerate() {
            let finite = g.is_finite() & p.is_finite();
            let within = |value: f32| within(value, finite);
            let mut g = penalised(g * scale, *p, penalty, finite);
            if KIND == SPAM {
                (*m, *v) = if forgets { (0.0, 0.0) } else { (*m, *v) };
                // Roots are compared, since small squares underflow.
                let most = within(rates.hyper.limit * *v).sqrt();
                g = if limits && g.abs() > most { most.copysign(g) } else { g };
            }
            [*m, *v] = rates.moments([*m, *v], g, finite);
            let mut second = *v;
            if KIND == AMSGRAD {
                // As integers: magnitudes compare alike, and NaN is larger than all.
                x[i] = f32::from_bits((second.to_bits() & 0x7fff_ffff).max(x[i].to_bits()));
                second = x[i];
            }
            let size = within(rates.root(second) + eps);
            let mut corrected = rates.corrected(*m, finite);
            if KIND == NADAM {
                corrected = within(corrected + rates.gradient_correction * g);
            }
            let still = size == 0.0 && if KIND == NADAM { corrected == 0.0 } else { *m == 0.0 };
            let quotient = quotient(corrected, size, still, finite);
            let direction = if KIND == RADAM && !divides { corrected } else { quotient };
            let direction = decayed(times(direction, own_ratio, finite), *p, decay, finite);
            *p = moved(*p, within(rates.lr * times(direction, ratio, finite)), finite);
        }
    }
}

/// A step. What does not move keeps every bit: -0 would lose its sign.
#[inline(always)]
fn moved(parameter: f32, by: f32, finite: bool) -> f32 {
    if by == 0.0 { parameter } else { within(parameter - by, finite) }
}

/// The direction with the decay of the parameter. One of 0 changes nothing, not even where the parameter is not finite.
#[inline(always)]
pub(super) fn decayed(direction: f32, parameter: f32, decay: f32, finite: bool) -> f32 {
    if decay == 0.0 { direction } else { within(direction + decay * parameter, finite) }
}

/// A penalty of 0 changes nothing, not even where the parameter is not finite.
#[inline(always)]
pub(super) fn penalised(gradient: f32, parameter: f32, penalty: f32, finite: bool) -> f32 {
    if penalty == 0.0 { gradient } else { within(gradient + penalty * parameter, finite) }
}

/// The same loop for the widest vectors there are; every operation rounds alike in all.
fn dispatch(rule: impl Rule, operands: Operands<'_>, rates: &Rates) {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the feature that the function is compiled for was just detected.
            return unsafe { avx512(rule, operands, rates) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: as above.
            return unsafe { avx2(rule, operands, rates) };
        }
    }
    rule.run(operands, rates);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn avx512(rule: impl Rule, operands: Operands<'_>, rates: &Rates) {
    rule.run(operands, rates);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2(rule: impl Rule, operands: Operands<'_>, rates: &Rates) {
    rule.run(operands, rates);
}
