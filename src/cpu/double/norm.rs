//! Which norm is summed, and in which units.

use crate::clip::{NormType, Summation};

/// Low bits that are dropped of the sum of a few squares.
pub(super) const DROPPED: u32 = 16;

/// A norm type, its p an `f64`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Norm {
    One,
    Two,
    Inf,
    P(f64),
}

impl From<NormType> for Norm {
    fn from(norm: NormType) -> Norm {
        match norm {
            NormType::One => Norm::One,
            NormType::Two => Norm::Two,
            NormType::Inf => Norm::Inf,
            NormType::P(p) => match p {
                1.0 => Norm::One,
                2.0 => Norm::Two,
                f64::INFINITY => Norm::Inf,
                p => Norm::P(p),
            },
        }
    }
}

impl From<Summation> for Norm {
    fn from(summation: Summation) -> Norm {
        match summation {
            Summation::One => Norm::One,
            Summation::Two => Norm::Two,
            Summation::Inf => Norm::Inf,
            Summation::P(p) => Norm::P(f32::from_bits(p).into()),
        }
    }
}

impl Norm {
    /// The p of [`Norm::P`]; 1 of others, which have no use for it.
    pub(super) fn p(self) -> f64 {
        if let Norm::P(p) = self { p } else { 1.0 }
    }

    /// Bits that an element's mantissa is moved up by before it is aligned to its block's largest.
    pub(super) fn guard(self) -> u32 {
        if self == Norm::One { 60 } else { 10 }
    }

    /// Position in a grid of the sum of a block whose largest exponent field is `field`.
    pub(super) fn position(self, field: u32) -> u32 {
        if self == Norm::One { field } else { 2 * field }
    }

    /// The exponent of a grid's position 0: an element's mantissa counts units of 2^(field - 1075).
    pub(super) fn unit(self) -> i32 {
        let one = -1075 - self.guard() as i32;
        if self == Norm::One { one } else { 2 * one + DROPPED as i32 }
    }
}
