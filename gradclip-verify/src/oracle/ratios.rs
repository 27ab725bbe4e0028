//! The factor of a tensor's update, from plain f64 sums over its elements, with how far an f32 program may be off.

use gradclip::{Optimizer, TrustRatio, UpdateLimit};

use super::near::Near;
use super::optimizer::{Step, Update};

/// A share of a norm that its integer sums and roundings leave out at most: below 2^-26 for the sum, and a few of 24 bits.
const LOST: f64 = 3.0 / (1u64 << 24) as f64;

/// What a number is off by of which nothing is known: 0 times it is 0.
const ANYTHING: f64 = 1e300;

/// A length in L2, with the length of what its terms may be off by: no sum of both is farther off.
#[derive(Clone, Copy, Debug, Default)]
struct Length {
    squares: f64,
    errors: f64,
    count: f64,
    infinite: bool,
}

impl Length {
    fn with(self, term: Near) -> Length {
        let infinite = self.infinite || term.value.is_infinite();
        let value = if term.value.is_infinite() { 0.0 } else { term.value };
        Length {
            squares: self.squares + value * value,
            errors: self.errors + term.error * term.error,
            count: self.count + 1.0,
            infinite,
        }
    }

    fn near(self) -> Near {
        let value = self.squares.sqrt();
        match self.infinite && !value.is_nan() {
            true => Near::exactly(f64::INFINITY),
            false => Near::within(value, self.errors.sqrt() + LOST * value),
        }
    }
}

/// a / b for positive numbers, off by what both are off by.
fn quotient(a: Near, b: Near) -> Near {
    let (value, least) = (a.value / b.value, b.value - b.error);
    let error = if least > 0.0 { (a.error + value * b.error) / least } else { ANYTHING };
    Near::within(value, if value.is_finite() { error + LOST * value } else { 0.0 })
}

impl Step {
    /// The same step with the factor that follows from all elements of the tensor: clipped gradients, and parameter and moments before.
    pub fn limited(mut self, elements: impl Iterator<Item = (Near, [f64; 4])>) -> Step {
        if !self.has_ratio() {
            return self;
        }
        let nothing = [Length::default(); 2];
        let lengths = elements.fold(nothing, |[update, parameter], (gradient, before)| {
            let before = before.map(|x| self.machine.operand(x));
            [update.with(self.measured(gradient, before)), parameter.with(before[0])]
        });
        self.ratio = match &self.optimizer {
            Optimizer::Lars(lars) => self.trust(&lars.trust, lengths, lars.norms_apart),
            Optimizer::Adam(adam) => match &adam.limit {
                Some(UpdateLimit::Trust(ratio)) => self.trust(ratio, lengths, false),
                Some(UpdateLimit::Rms(most)) => within(*most, lengths[0]),
                _ => within(1.0, lengths[0]),
            },
            _ => self.ratio,
        };
        self
    }

    fn has_ratio(&self) -> bool {
        match &self.optimizer {
            Optimizer::Lars(_) => true,
            Optimizer::Adam(adam) => adam.limit.is_some(),
            _ => false,
        }
    }

    /// What the factor follows from.
    fn measured(&self, gradient: Near, before: [Near; 4]) -> Near {
        let machine = self.machine;
        match &self.optimizer {
            Optimizer::Lars(lars) if lars.norms_apart => gradient,
            Optimizer::Lars(lars) => {
                let g = if lars.maximize { gradient.negated() } else { gradient };
                machine.sum(g, self.decay_of(before[0]))
            }
            Optimizer::Adam(adam) => {
                let g = if adam.maximize { gradient.negated() } else { gradient };
                let Update { gradient, root, direction, decay, .. } = self.adam_update(adam, g, before);
                match &adam.limit {
                    Some(UpdateLimit::Rms(_)) => direction,
                    Some(UpdateLimit::Trust(_)) => machine.sum(direction, decay),
                    _ => {
                        let size = root.or_larger(machine.constant(adam.eps));
                        let still = gradient.is_zero() && size.is_zero();
                        if still { gradient } else { machine.quotient(gradient, size) }
                    }
                }
            }
            _ => gradient,
        }
    }

    fn trust(&self, trust: &TrustRatio, [update, parameter]: [Length; 2], apart: bool) -> Near {
        let [own, size] = [update.near(), parameter.near()];
        if own.value == 0.0 || size.value == 0.0 {
            return Near::exactly(1.0);
        }
        let by = |factor: f64| Near::within(factor * size.value, factor * (size.error + LOST * size.value));
        let penalty = by(if apart { self.weight_decay.value } else { 0.0 });
        let eps = trust.eps;
        let divisor = Near::within(
            own.value + penalty.value + eps,
            own.error + penalty.error + LOST * (own.value + eps),
        );
        let ratio = quotient(by(trust.coefficient), divisor);
        let most = trust.most;
        if ratio.value - ratio.error > most { Near::within(most, LOST * most) } else { least(ratio, most) }
    }
}

/// The smaller of a number and a bound, which is no farther off.
fn least(near: Near, bound: f64) -> Near {
    let value = if near.value.is_nan() { near.value } else { near.value.min(bound) };
    Near::within(value, near.error)
}

/// min(1, most / RMS).
fn within(most: f64, update: Length) -> Near {
    let length = update.near();
    let bound = most * update.count.sqrt();
    if length.value + length.error < bound * (1.0 - LOST) {
        return Near::exactly(1.0);
    }
    least(quotient(Near::within(bound, LOST * bound), length), 1.0)
}
