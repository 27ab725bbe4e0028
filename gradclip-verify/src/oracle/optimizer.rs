//! An optimiser's step on one element in plain f64 arithmetic, with how far an f32 program may be off.

use gradclip::{Adam, Adopt, Lars, Lion, NAdam, Optimizer, RAdam, Sgd, Spam, UpdateLimit};

use super::near::{Machine, Near};
use crate::tolerance::HALF_ULP;

/// What NAdam, RAdam and SPAM multiply by, the same for all elements.
#[derive(Clone, Copy, Debug)]
struct Factors {
    gradient: Near,
    first: Near,
    /// Of the root of the second moment; 0 where RAdam does not divide by it.
    second: Near,
}

impl Factors {
    fn of(machine: Machine, optimizer: &Optimizer, t: u32) -> Factors {
        let nothing = Near::exactly(0.0);
        let factors = match optimizer {
            Optimizer::NAdam(nadam) => of_nadam(nadam, t),
            Optimizer::RAdam(radam) => of_radam(radam, t),
            Optimizer::Spam(spam) => of_spam(spam, t),
            _ => [nothing; 3],
        };
        let [gradient, first, second] = factors.map(|f| machine.shared(f));
        Factors { gradient, first, second }
    }
}

/// μ of a step.
fn momentum(nadam: &NAdam, t: u32) -> Near {
    let twice = Machine::CPU.sum(Near::exactly(1.0), grown(nadam, t));
    Machine::CPU.product(Machine::CPU.constant(nadam.betas.0 / 2.0), twice)
}

/// 1 - 0.96^(t ψ).
fn grown(nadam: &NAdam, t: u32) -> Near {
    let value = -(f64::from(t) * nadam.momentum_decay * f64::ln(0.96)).exp_m1();
    Near::within(value, (3.0 * f64::from(t).log2().ceil() + 3.0) * HALF_ULP * value)
}

/// The product of NAdam's first t μ, or something below 1e-30 where that is.
pub fn momentum_product(nadam: &NAdam, t: u32) -> Near {
    let mut product = Near::exactly(1.0);
    for k in 1..=t {
        if product.value < 1e-30 {
            break;
        }
        product = Machine::CPU.product(product, momentum(nadam, k));
    }
    product
}

fn of_nadam(nadam: &NAdam, t: u32) -> [Near; 3] {
    let machine = Machine::CPU;
    let left = |a: Near| machine.sum(Near::exactly(1.0), a.negated());
    let product = momentum_product(nadam, t);
    let rest = machine.product(machine.constant(nadam.betas.0 / 2.0), left(grown(nadam, t)));
    let share = machine.sum(machine.constant(1.0 - nadam.betas.0), rest);
    let next = momentum(nadam, t + 1);
    let first = machine.quotient(next, left(machine.product(product, next)));
    let second = machine.root(machine.correction(1.0 - nadam.betas.1, t));
    [machine.quotient(share, left(product)), first, second]
}

fn of_radam(radam: &RAdam, t: u32) -> [Near; 3] {
    let (machine, nothing) = (Machine::CPU, Near::exactly(0.0));
    let first = machine.correction(1.0 - radam.betas.0, t);
    let rho = averaged_steps(radam.betas.1, t);
    if rho <= 5.0 {
        return [nothing, first, nothing];
    }
    let rho = Near::within(rho, (2.0 * f64::from(t).log2().ceil() + 4.0) * HALF_ULP * rho);
    let most = 2.0 / (1.0 - radam.betas.1) - 1.0;
    let certainty = |rho: Near| {
        let [four, two] = [-4.0, -2.0].map(|by| machine.sum(rho, Near::exactly(by)));
        machine.quotient(machine.product(four, two), rho)
    };
    let share = machine.quotient(certainty(rho), certainty(Near::within(most, 3.0 * HALF_ULP * most)));
    let second = machine.root(machine.correction(1.0 - radam.betas.1, t));
    [nothing, machine.product(first, machine.root(share)), second]
}

/// RAdam's ρ from its definition by sums: twice the mean step, each weighing as its gradient does, less 1.
fn averaged_steps(second: f64, t: u32) -> f64 {
    let (mut ranks, mut weights, mut weight) = (0.0, 0.0, 1.0);
    for k in (1..=t).take_while(|&k| second.powf(f64::from(k)) > 1e-30 || k == 1) {
        (ranks, weights) = (ranks + f64::from(k) * weight, weights + weight);
        weight *= second;
    }
    2.0 * ranks / weights - 1.0
}

/// SPAM's rate after moments were forgotten in its factor of the first moment: a few roundings of a sine, twice, and of what it is part of.
fn of_spam(spam: &Spam, t: u32) -> [Near; 3] {
    let machine = Machine::CPU;
    let (k, warmup) = (t.checked_rem(spam.interval).unwrap_or(t), f64::from(spam.warmup) + 1.0);
    let rises = spam.interval > 0 && t >= spam.interval && k < spam.warmup;
    let cosine = (std::f64::consts::PI * f64::from(k) / warmup).cos();
    let rate = if rises { 1.0 - 0.99 * (1.0 + cosine) / 2.0 } else { 1.0 };
    let rate = Near::within(rate, if rises { 40.0 * HALF_ULP * rate } else { 0.0 });
    let first = machine.product(machine.correction(1.0 - spam.betas.0, t), rate);
    [Near::exactly(0.0), first, machine.root(machine.correction(1.0 - spam.betas.1, t))]
}

/// A step on the elements of one tensor.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub(super) machine: Machine,
    pub(super) optimizer: Optimizer,
    /// Number of the step, from 1.
    t: u32,
    factors: Factors,
    /// Learning rate of the tensor.
    lr: Near,
    pub(super) weight_decay: Near,
    /// Factor of its update.
    pub(super) ratio: Near,
}

/// Adam's update of an element before anything limits it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Update {
    /// Gradient with its penalty.
    pub(super) gradient: Near,
    /// The corrected root of its second moment.
    pub(super) root: Near,
    pub(super) direction: Near,
    /// The decay, where it is apart.
    pub(super) decay: Near,
    /// Moments after the step, and the second moment of the step.
    moments: [Near; 3],
}

impl Step {
    /// Step `t`, counted from 1, of a tensor with a factor of the learning rate and a weight decay.
    pub fn new(machine: Machine, optimizer: Optimizer, t: u32, lr_scale: f64, decay: f64) -> Step {
        let lr = machine.product(machine.constant(optimizer.lr()), machine.constant(lr_scale));
        let factors = Factors::of(machine, &optimizer, t);
        let (weight_decay, ratio) = (machine.constant(decay), Near::exactly(1.0));
        Step { machine, optimizer, t, factors, lr, weight_decay, ratio }
    }

    /// Parameter and up to three moments after the step, from those before it and the clipped gradient. Moments that the
    /// optimiser does not have mean nothing.
    pub fn of(&self, gradient: Near, before: [f64; 4]) -> [Near; 4] {
        let [p, m, v, largest] = before.map(|x| self.machine.operand(x));
        let against = |maximize| if maximize { gradient.negated() } else { gradient };
        match &self.optimizer {
            Optimizer::Sgd(sgd) => self.descent(sgd, against(sgd.maximize), p, m),
            Optimizer::Lars(lars) => self.lars(lars, against(lars.maximize), p, m),
            Optimizer::Adam(adam) => self.adam(adam, against(adam.maximize), [p, m, v, largest]),
            Optimizer::NAdam(nadam) => self.nadam(nadam, against(nadam.maximize), [p, m, v]),
            Optimizer::RAdam(radam) => self.radam(radam, against(radam.maximize), [p, m, v]),
            Optimizer::Spam(spam) => self.spam(spam, against(spam.maximize), [p, m, v]),
            Optimizer::Adopt(adopt) => self.adopt(adopt, against(adopt.maximize), [p, m, v]),
            Optimizer::Lion(lion) => self.lion(lion, against(lion.maximize), p, m),
            // There are no others yet: NaN is never right.
            _ => [Near::exactly(f64::NAN); 4],
        }
    }

    fn adopt(&self, adopt: &Adopt, gradient: Near, [p, m, v]: [Near; 3]) -> [Near; 4] {
        let Step { machine, t, .. } = *self;
        let decay = self.decay_of(p);
        let g = if adopt.decoupled { gradient } else { machine.sum(gradient, decay) };
        if t == 1 {
            let v = machine.product(g, g);
            return [p, m, v, v];
        }
        let size = machine.root(v).or_larger(machine.constant(adopt.eps));
        let along = if g.is_zero() && size.is_zero() { g } else { machine.quotient(g, size) };
        let bound = machine.root(machine.root(Near::exactly(f64::from(t - 1))));
        let along = if adopt.clipping { along.within_bounds(bound) } else { along };
        let kept = machine.product(machine.constant(adopt.betas.0), m);
        let m = machine.sum(kept, machine.product(machine.constant(1.0 - adopt.betas.0), along));
        let direction = if adopt.decoupled { machine.sum(m, decay) } else { m };
        let [_, v] = self.moments(adopt.betas, g, [m, v]);
        [self.moved(p, direction), m, v, v]
    }

    fn lion(&self, lion: &Lion, gradient: Near, p: Near, m: Near) -> [Near; 4] {
        let machine = self.machine;
        let mean = |decay: f64| {
            let kept = machine.product(machine.constant(decay), m);
            machine.sum(kept, machine.product(machine.constant(1.0 - decay), gradient))
        };
        let (direction, m) = (mean(lion.betas.0).sign(), mean(lion.betas.1));
        let direction = machine.sum(direction, self.decay_of(p));
        [self.moved(p, direction), m, m, m]
    }

    fn descent(&self, sgd: &Sgd, gradient: Near, p: Near, m: Near) -> [Near; 4] {
        let machine = self.machine;
        let g = machine.sum(gradient, self.decay_of(p));
        if sgd.momentum == 0.0 {
            return [self.moved(p, g), m, m, m];
        }
        let decay = machine.constant(sgd.momentum);
        let share = if self.t == 1 { Near::exactly(1.0) } else { machine.constant(1.0 - sgd.dampening) };
        let m = machine.sum(machine.product(decay, m), machine.product(share, g));
        let nesterov = machine.sum(g, machine.product(decay, m));
        [self.moved(p, if sgd.nesterov { nesterov } else { m }), m, m, m]
    }

    /// The moments that a gradient leaves.
    fn moments(&self, (first, second): (f64, f64), g: Near, [m, v]: [Near; 2]) -> [Near; 2] {
        let machine = self.machine;
        let kept = machine.product(machine.constant(first), m);
        let m = machine.sum(kept, machine.product(machine.constant(1.0 - first), g));
        let kept = machine.product(machine.constant(second), v);
        let square = machine.product(machine.product(machine.constant(1.0 - second), g), g);
        [m, machine.sum(kept, square)]
    }

    fn nadam(&self, nadam: &NAdam, gradient: Near, [p, m, v]: [Near; 3]) -> [Near; 4] {
        let Step { machine, factors, .. } = *self;
        let decay = self.decay_of(p);
        let g = if nadam.decoupled { gradient } else { machine.sum(gradient, decay) };
        let [m, v] = self.moments(nadam.betas, g, [m, v]);
        let ahead = machine.sum(machine.product(m, factors.first), machine.product(factors.gradient, g));
        let size = machine.product(machine.root(v), factors.second);
        let size = machine.sum(size, machine.constant(nadam.eps));
        let direction = if ahead.is_zero() && size.is_zero() { ahead } else { machine.quotient(ahead, size) };
        let direction = if nadam.decoupled { machine.sum(direction, decay) } else { direction };
        [self.moved(p, direction), m, v, v]
    }

    fn radam(&self, radam: &RAdam, gradient: Near, [p, m, v]: [Near; 3]) -> [Near; 4] {
        let Step { machine, factors, .. } = *self;
        let decay = self.decay_of(p);
        let g = if radam.decoupled { gradient } else { machine.sum(gradient, decay) };
        let [m, v] = self.moments(radam.betas, g, [m, v]);
        let corrected = machine.product(m, factors.first);
        let size = machine.product(machine.root(v), factors.second);
        let size = machine.sum(size, machine.product(machine.constant(radam.eps), factors.second));
        let plain = factors.second.is_zero() || (m.is_zero() && size.is_zero());
        let direction = if plain { corrected } else { machine.quotient(corrected, size) };
        let direction = if radam.decoupled { machine.sum(direction, decay) } else { direction };
        [self.moved(p, direction), m, v, v]
    }

    pub(super) fn adam_update(&self, adam: &Adam, gradient: Near, [p, m, v, largest]: [Near; 4]) -> Update {
        let Step { machine, t, .. } = *self;
        let decay = self.decay_of(p);
        let g = if adam.decoupled { gradient } else { machine.sum(gradient, decay) };
        let (first, second) = adam.betas;
        let [m, v] = self.moments(adam.betas, g, [m, v]);
        let largest = if adam.amsgrad { v.or_larger(largest) } else { v };
        let second_correction = machine.root(machine.correction(1.0 - second, t));
        let root = machine.product(machine.root(largest), second_correction);
        let eps = machine.constant(adam.eps);
        let eps = if adam.eps_hat { machine.product(eps, second_correction) } else { eps };
        let size = machine.sum(root, eps);
        let corrected = machine.product(m, machine.correction(1.0 - first, t));
        let still = m.is_zero() && size.is_zero();
        let direction = if still { m } else { machine.quotient(corrected, size) };
        let decay = if adam.decoupled { decay } else { Near::exactly(0.0) };
        Update { gradient: g, root, direction, decay, moments: [m, v, largest] }
    }

    fn adam(&self, adam: &Adam, gradient: Near, before: [Near; 4]) -> [Near; 4] {
        let Step { machine, ratio, .. } = *self;
        let Update { direction, decay, moments: [m, v, largest], .. } =
            self.adam_update(adam, gradient, before);
        let direction = match adam.limit {
            None => machine.sum(direction, decay),
            Some(UpdateLimit::Rms(_)) => machine.sum(machine.product(direction, ratio), decay),
            Some(_) => machine.product(machine.sum(direction, decay), ratio),
        };
        [self.moved(before[0], direction), m, v, largest]
    }

    fn spam(&self, spam: &Spam, gradient: Near, [p, m, v]: [Near; 3]) -> [Near; 4] {
        let Step { machine, factors, t, .. } = *self;
        let since = t.checked_rem(spam.interval).unwrap_or(t);
        let begins = spam.interval > 0 && since == 0;
        let [m, v] = if begins { [Near::exactly(0.0); 2] } else { [m, v] };
        let limits = spam.threshold.is_finite() && t.min(since) >= spam.delay;
        let bound = machine.root(machine.product(machine.constant(spam.threshold), v));
        let g = if limits && !bound.value.is_nan() { gradient.within_bounds(bound) } else { gradient };
        let [m, v] = self.moments(spam.betas, g, [m, v]);
        let eps = machine.product(machine.constant(spam.eps), factors.second);
        let size = machine.sum(machine.product(machine.root(v), factors.second), eps);
        let still = m.is_zero() && size.is_zero();
        let direction = if still { m } else { machine.quotient(machine.product(m, factors.first), size) };
        let direction = machine.sum(direction, self.decay_of(p));
        [self.moved(p, direction), m, v, v]
    }

    fn lars(&self, lars: &Lars, gradient: Near, p: Near, m: Near) -> [Near; 4] {
        let Step { machine, ratio, lr, .. } = *self;
        let u = machine.sum(gradient, self.decay_of(p));
        let along = machine.product(machine.product(lr, ratio), u);
        let decay = machine.constant(lars.momentum);
        let m = machine.sum(machine.product(decay, m), along);
        let ahead = machine.sum(machine.product(decay, m), along);
        [self.moved_by(p, if lars.nesterov { ahead } else { m }), m, m, m]
    }

    /// A decay of 0 is none, also of what is not finite.
    pub(super) fn decay_of(&self, p: Near) -> Near {
        let none = self.weight_decay.value == 0.0;
        if none { Near::exactly(0.0) } else { self.machine.product(self.weight_decay, p) }
    }

    fn moved(&self, p: Near, direction: Near) -> Near {
        self.moved_by(p, self.machine.product(self.lr, direction))
    }

    fn moved_by(&self, p: Near, by: Near) -> Near {
        // What does not move keeps every bit.
        let still = Near::exactly(p.value);
        if by.is_zero() { still } else { self.machine.sum(p, by.negated()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// torch.optim.AdamW after one step is a step of lr against the sign, and the decay.
    #[test]
    fn adam_begins_with_the_sign() {
        let adam = Adam::adamw(0.1).weight_decay(0.5).into();
        let step = Step::new(Machine::CPU, adam, 1, 1.0, 0.5);
        let [p, m, v, _] = step.of(Near::exactly(-3.0), [2.0, 0.0, 0.0, 0.0]);
        assert!((p.value - (2.0 - 0.1 * 0.5 * 2.0 + 0.1)).abs() < 1e-9 && p.most() < 2.0, "{p:?}");
        assert!((m.value + 0.3).abs() < 1e-15 && (v.value - 0.009).abs() < 1e-15, "{m:?} {v:?}");
    }
}
