//! An optimiser's step on one element in plain f64 arithmetic, and how far an f32 program may be off.
//!
//! Each operation of such a program adds its own rounding, relative to its result, to what its operands
//! are off by already. A product fused with a sum only leaves one out.

use gradclip::{Adam, Adopt, Lion, NAdam, Optimizer, RAdam, Sgd};

use crate::tally::ulp;
use crate::tensor::Element;
use crate::tolerance::HALF_ULP;

/// Half of the smallest subnormal f32.
const LEAST: f64 = f32::from_bits(1) as f64 / 2.0;
/// The smallest normal f32.
const NORMAL: f64 = f32::MIN_POSITIVE as f64;

/// A number, and how far what stands for it may be off.
#[derive(Clone, Copy, Debug)]
pub struct Near {
    /// What it is.
    pub value: f64,
    /// How far off it may be.
    pub error: f64,
    /// It, or the largest of the terms that it is the sum of: errors are counted in ulp of this.
    size: f64,
}

impl Near {
    /// A number that is known.
    pub fn exactly(value: f64) -> Near {
        Near::within(value, 0.0)
    }

    /// One that is known but for an error.
    pub fn within(value: f64, error: f64) -> Near {
        Near { value, error, size: value.abs() }
    }

    /// An ulp of its size.
    pub fn unit(&self) -> f64 {
        ulp(Element::F32, self.size.min(f32::MAX.into()))
    }

    /// Ulp between a result and this. The number after the largest is infinity.
    pub fn off(&self, got: f64) -> f64 {
        if self.value.is_nan() {
            return f64::from(u8::from(!got.is_nan()));
        }
        let largest = f64::from(f32::MAX) + ulp(Element::F32, f32::MAX.into());
        let last = |value: f64| value.clamp(-largest, largest);
        (last(got) - last(self.value)).abs() / self.unit()
    }

    /// Ulp that are allowed.
    pub fn most(&self) -> f64 {
        if self.value.is_nan() { 0.0 } else { self.error / self.unit() }
    }

    fn negated(self) -> Near {
        Near { value: -self.value, ..self }
    }

    /// 1 with its sign, 0 for zero; anything from -1 to 1 where it is too near to zero to tell.
    fn sign(self) -> Near {
        if self.error > 0.0 && self.value.abs() <= self.error {
            return Near { value: 0.0, error: 1.0, size: 1.0 };
        }
        Near::exactly(if self.value == 0.0 || self.value.is_nan() { self.value } else { self.value.signum() })
    }

    /// The larger of two, NaN if either is.
    fn or_larger(self, other: Near) -> Near {
        let larger = if other.value > self.value { other } else { self };
        let value = if self.value.is_nan() || other.value.is_nan() { f64::NAN } else { larger.value };
        Near { value, error: self.error.max(other.error), size: larger.size }
    }

    /// Its part from -bound to bound: what either is off by moves that no further.
    fn within_bounds(self, bound: Near) -> Near {
        let value =
            if self.value.is_nan() { self.value } else { self.value.clamp(-bound.value, bound.value) };
        let off = if self.value.abs() - self.error > bound.value + bound.error { 0.0 } else { self.error };
        Near { value, error: off.max(bound.error), size: self.size.min(bound.value.max(value.abs())) }
    }

    fn is_zero(&self) -> bool {
        self.value == 0.0 && self.error == 0.0
    }
}

/// An f32 arithmetic by its errors, in half ulp.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    constant: f64,
    division: f64,
    root: f64,
    /// Whether 0 may stand for what is subnormal.
    flushes: bool,
}

impl Machine {
    /// The CPU path: everything is rounded correctly.
    pub const CPU: Machine = Machine { constant: 1.0, division: 1.0, root: 1.0, flushes: false };
    /// The same beside another program with the same constants.
    pub const TWIN: Machine = Machine { constant: 0.0, ..Machine::CPU };
    /// What WGSL promises: 2.5 ulp for a quotient, and the root is one, of 1 and what is 2 ulp off.
    pub const ADAPTER: Machine = Machine { division: 5.0, root: 9.0, ..Machine::TWIN };
    /// It may also flush subnormal operands and results.
    pub const FLUSHING: Machine = Machine { flushes: true, ..Machine::ADAPTER };
    /// Such an adapter beside `f64`.
    pub const DEVICE: Machine = Machine { constant: 1.0, ..Machine::FLUSHING };

    fn rounded(self, Near { value, error, size }: Near, half_ulps: f64) -> Near {
        if !value.is_finite() || (value == 0.0 && error == 0.0) {
            return Near { value, error, size };
        }
        let subnormal = value.abs() - error < NORMAL;
        let least = if self.flushes && subnormal { NORMAL } else { LEAST };
        let error = error + half_ulps * HALF_ULP * (value.abs() + error) + least;
        // What is subnormal has fewer digits than its size says, also when it is multiplied.
        Near { value, error, size: size.max(NORMAL) }
    }

    /// A number from memory.
    fn operand(self, value: f64) -> Near {
        let flushed = self.flushes && value.abs() < NORMAL;
        Near::within(value, if flushed { value.abs() } else { 0.0 })
    }

    fn constant(self, value: f64) -> Near {
        Near::within(value, self.constant * HALF_ULP * value)
    }

    /// A sum of two numbers.
    pub fn sum(self, a: Near, b: Near) -> Near {
        let value = a.value + b.value;
        let size = a.size.max(b.size).max(value.abs());
        self.rounded(Near { value, error: a.error + b.error, size }, 1.0)
    }

    fn product(self, a: Near, b: Near) -> Near {
        let error = a.value.abs() * b.error + b.value.abs() * a.error + a.error * b.error;
        self.rounded(Near { value: a.value * b.value, error, size: a.size * b.size }, 1.0)
    }

    fn quotient(self, a: Near, b: Near) -> Near {
        let (value, least) = (a.value / b.value, b.value.abs() - b.error);
        let error = if least > 0.0 { (a.error + value.abs() * b.error) / least } else { f64::INFINITY };
        self.rounded(Near { value, error, size: a.size / b.value.abs() }, self.division)
    }

    fn root(self, a: Near) -> Near {
        let value = a.value.sqrt();
        let (above, below) = ((a.value + a.error).sqrt(), (a.value - a.error).max(0.0).sqrt());
        let error = (above - value).max(value - below);
        self.rounded(Near { value, error, size: a.size.sqrt() }, self.root)
    }

    /// 1 / (1 - (1 - c)^t), with the roundings of a power by squaring: three a bit of t, and four.
    fn correction(self, c: f64, t: u32) -> Near {
        let value = -1.0 / (f64::from(t) * (-c).ln_1p()).exp_m1();
        let roundings = 3.0 * f64::from(t).log2().ceil() + 4.0;
        Near::within(value, self.constant * roundings * HALF_ULP * value)
    }
}

/// What NAdam and RAdam multiply by, the same for all elements.
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
            _ => [nothing; 3],
        };
        // Programs with the same constants make the same factors of them, to the bit.
        let [gradient, first, second] = factors.map(|f| Near { error: machine.constant * f.error, ..f });
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

/// A step on the elements of one tensor.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    machine: Machine,
    optimizer: Optimizer,
    /// Number of the step, from 1.
    t: u32,
    factors: Factors,
    /// Learning rate of the tensor.
    lr: Near,
    weight_decay: Near,
}

impl Step {
    /// Step `t`, counted from 1, of a tensor with a factor of the learning rate and a weight decay.
    pub fn new(machine: Machine, optimizer: Optimizer, t: u32, lr_scale: f64, decay: f64) -> Step {
        let lr = machine.product(machine.constant(optimizer.lr()), machine.constant(lr_scale));
        let factors = Factors::of(machine, &optimizer, t);
        Step { machine, optimizer, t, factors, lr, weight_decay: machine.constant(decay) }
    }

    /// Parameter and up to three moments after the step, from those before it and the clipped gradient. Moments that the
    /// optimiser does not have mean nothing.
    pub fn of(&self, gradient: Near, before: [f64; 4]) -> [Near; 4] {
        let [p, m, v, largest] = before.map(|x| self.machine.operand(x));
        let against = |maximize| if maximize { gradient.negated() } else { gradient };
        match &self.optimizer {
            Optimizer::Sgd(sgd) => self.descent(sgd, against(sgd.maximize), p, m),
            Optimizer::Adam(adam) => self.adam(adam, against(adam.maximize), [p, m, v, largest]),
            Optimizer::NAdam(nadam) => self.nadam(nadam, against(nadam.maximize), [p, m, v]),
            Optimizer::RAdam(radam) => self.radam(radam, against(radam.maximize), [p, m, v]),
            Optimizer::Adopt(adopt) => self.adopt(adopt, against(adopt.maximize), [p, m, v]),
            Optimizer::Lion(lion) => self.lion(lion, against(lion.maximize), p, m),
            // There are no others yet: NaN is never right.
            _ => [Near::exactly(f64::NAN); 4],
        }
    }

    fn adopt(&self, adopt: &Adopt, gradient: Near, [p, m, v]: [Near; 3]) -> [Near; 4] {
        let Step { machine, t, .. } = *self;
        let decay = machine.product(self.weight_decay, p);
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
        let Step { machine, weight_decay, .. } = *self;
        let mean = |decay: f64| {
            let kept = machine.product(machine.constant(decay), m);
            machine.sum(kept, machine.product(machine.constant(1.0 - decay), gradient))
        };
        let (direction, m) = (mean(lion.betas.0).sign(), mean(lion.betas.1));
        let direction = machine.sum(direction, machine.product(weight_decay, p));
        [self.moved(p, direction), m, m, m]
    }

    fn descent(&self, sgd: &Sgd, gradient: Near, p: Near, m: Near) -> [Near; 4] {
        let Step { machine, weight_decay, .. } = *self;
        let g = machine.sum(gradient, machine.product(weight_decay, p));
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
        let decay = machine.product(self.weight_decay, p);
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
        let decay = machine.product(self.weight_decay, p);
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

    fn adam(&self, adam: &Adam, gradient: Near, [p, m, v, largest]: [Near; 4]) -> [Near; 4] {
        let Step { machine, weight_decay, t, .. } = *self;
        let decay = machine.product(weight_decay, p);
        let g = if adam.decoupled { gradient } else { machine.sum(gradient, decay) };
        let (first, second) = adam.betas;
        let [m, v] = self.moments(adam.betas, g, [m, v]);
        let largest = if adam.amsgrad { v.or_larger(largest) } else { v };
        let root = machine.root(largest);

        let second_correction = machine.root(machine.correction(1.0 - second, t));
        let eps = machine.constant(adam.eps);
        let eps = if adam.eps_hat { machine.product(eps, second_correction) } else { eps };
        let size = machine.sum(machine.product(root, second_correction), eps);
        let corrected = machine.product(m, machine.correction(1.0 - first, t));
        let still = m.is_zero() && size.is_zero();
        let direction = if still { m } else { machine.quotient(corrected, size) };
        let direction = if adam.decoupled { machine.sum(direction, decay) } else { direction };
        [self.moved(p, direction), m, v, largest]
    }

    fn moved(&self, p: Near, direction: Near) -> Near {
        let by = self.machine.product(self.lr, direction);
        // What does not move keeps every bit.
        let still = Near::exactly(p.value);
        if by.is_zero() { still } else { self.machine.sum(p, Near { value: -by.value, ..by }) }
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

    #[test]
    fn errors_are_those_of_f32() {
        let machine = Machine::CPU;
        let third = machine.quotient(Near::exactly(1.0), Near::exactly(3.0));
        assert!(third.off(f64::from(1.0f32 / 3.0)) <= third.most() && third.most() < 1.0);
        assert!(third.off(f64::from(1.0f32 / 3.0 + f32::EPSILON)) > third.most());
        let cancelled = machine.sum(third, Near::exactly(-0.333));
        assert!(cancelled.off(f64::from(1.0f32 / 3.0 - 0.333f32)) <= 1.0);
        let nothing = machine.sum(Near::exactly(0.0), Near::exactly(0.0));
        assert_eq!((nothing.most(), nothing.off(f32::from_bits(1).into())), (0.0, 1.0));
        assert_eq!(Near::exactly(1e39).off(f64::INFINITY), 0.0);
        let tiny = Machine::FLUSHING.product(Near::exactly(1e-30), Near::exactly(1e-10));
        assert!(tiny.off(0.0) <= tiny.most());
    }
}
