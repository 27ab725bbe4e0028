//! The update rules, over neighbouring elements.

use crate::cpu::lanes::{ByLanes, Lanes, by_lanes};
use crate::layout::{
    ADAM, ADOPT, AMSGRAD, CLIPS_UPDATE, DECOUPLED, Hyper, LARS, LIMITS_RMS, LION, NADAM, NESTEROV, RADAM,
    RATIOS, SPAM,
};

use super::arithmetic::{decayed, moved, penalised, quotient, within};
use super::rates::Rates;

/// Slices of one length, but for the moments that a rule does not have.
pub(super) struct Operands<'a> {
    pub(super) gradient: &'a [f32],
    /// Factor of the gradient.
    pub(super) scale: f32,
    pub(super) parameter: &'a mut [f32],
    pub(super) moments: [&'a mut [f32]; 3],
}

/// Moves a parameter and its moments by the rule that the constants ask for.
pub(super) fn update(operands: Operands<'_>, rates: &Rates) {
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

/// The same loop for the widest vectors there are; every operation rounds alike in all.
fn dispatch(rule: impl Rule, operands: Operands<'_>, rates: &Rates) {
    by_lanes(Ruled { rule, operands, rates });
}

struct Ruled<'a, R> {
    rule: R,
    operands: Operands<'a>,
    rates: &'a Rates,
}

impl<R: Rule> ByLanes for Ruled<'_, R> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        self.rule.run(self.operands, self.rates);
    }
}
