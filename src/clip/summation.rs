//! How a norm is summed.

use super::rule::NormType;

/// How a norm is summed: in integers, but for `P`, which holds the bits of p.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Summation {
    One,
    Two,
    Inf,
    P(u32),
}

impl Summation {
    /// Powers of two by which one step of the exponent moves a sum.
    pub(crate) fn align(self) -> u32 {
        match self {
            Summation::One => 1,
            Summation::Two => 2,
            Summation::Inf | Summation::P(_) => 0,
        }
    }
}

impl From<NormType> for Summation {
    fn from(norm: NormType) -> Summation {
        match norm {
            NormType::One => Summation::One,
            NormType::Two => Summation::Two,
            NormType::Inf => Summation::Inf,
            NormType::P(p) => match p as f32 {
                1.0 => Summation::One,
                2.0 => Summation::Two,
                f32::INFINITY => Summation::Inf,
                p => Summation::P(p.to_bits()),
            },
        }
    }
}
