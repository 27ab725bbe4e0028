//! Numbers that stand for others, and how far an f32 program may be off.
//!
//! Each operation of such a program adds its own rounding, relative to its result, to what its operands
//! are off by already. A product fused with a sum only leaves one out.

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

    pub(super) fn negated(self) -> Near {
        Near { value: -self.value, ..self }
    }

    /// 1 with its sign, 0 for zero; anything from -1 to 1 where it is too near to zero to tell.
    pub(super) fn sign(self) -> Near {
        if self.error > 0.0 && self.value.abs() <= self.error {
            return Near { value: 0.0, error: 1.0, size: 1.0 };
        }
        Near::exactly(if self.value == 0.0 || self.value.is_nan() { self.value } else { self.value.signum() })
    }

    /// The larger of two, NaN if either is.
    pub(super) fn or_larger(self, other: Near) -> Near {
        let larger = if other.value > self.value { other } else { self };
        let value = if self.value.is_nan() || other.value.is_nan() { f64::NAN } else { larger.value };
        Near { value, error: self.error.max(other.error), size: larger.size }
    }

    /// Its part from -bound to bound: what either is off by moves that no further.
    pub(super) fn within_bounds(self, bound: Near) -> Near {
        let value =
            if self.value.is_nan() { self.value } else { self.value.clamp(-bound.value, bound.value) };
        let off = if self.value.abs() - self.error > bound.value + bound.error { 0.0 } else { self.error };
        Near { value, error: off.max(bound.error), size: self.size.min(bound.value.max(value.abs())) }
    }

    pub(super) fn is_zero(&self) -> bool {
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
    pub(super) fn operand(self, value: f64) -> Near {
        let flushed = self.flushes && value.abs() < NORMAL;
        Near::within(value, if flushed { value.abs() } else { 0.0 })
    }

    /// A constant that was computed: programs with the same constants have it alike, to the bit.
    pub(super) fn shared(self, computed: Near) -> Near {
        Near { error: self.constant * computed.error, ..computed }
    }

    pub(super) fn constant(self, value: f64) -> Near {
        Near::within(value, self.constant * HALF_ULP * value)
    }

    /// A sum of two numbers.
    pub fn sum(self, a: Near, b: Near) -> Near {
        let value = a.value + b.value;
        let size = a.size.max(b.size).max(value.abs());
        self.rounded(Near { value, error: a.error + b.error, size }, 1.0)
    }

    pub(super) fn product(self, a: Near, b: Near) -> Near {
        let error = a.value.abs() * b.error + b.value.abs() * a.error + a.error * b.error;
        self.rounded(Near { value: a.value * b.value, error, size: a.size * b.size }, 1.0)
    }

    pub(super) fn quotient(self, a: Near, b: Near) -> Near {
        let (value, least) = (a.value / b.value, b.value.abs() - b.error);
        let error = if least > 0.0 { (a.error + value.abs() * b.error) / least } else { f64::INFINITY };
        self.rounded(Near { value, error, size: a.size / b.value.abs() }, self.division)
    }

    pub(super) fn root(self, a: Near) -> Near {
        let value = a.value.sqrt();
        let (above, below) = ((a.value + a.error).sqrt(), (a.value - a.error).max(0.0).sqrt());
        let error = (above - value).max(value - below);
        self.rounded(Near { value, error, size: a.size.sqrt() }, self.root)
    }

    /// 1 / (1 - (1 - c)^t), with the roundings of a power by squaring: three a bit of t, and four.
    pub(super) fn correction(self, c: f64, t: u32) -> Near {
        let value = -1.0 / (f64::from(t) * (-c).ln_1p()).exp_m1();
        let roundings = 3.0 * f64::from(t).log2().ceil() + 4.0;
        Near::within(value, self.constant * roundings * HALF_ULP * value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
