//! How a norm is summed.

use super::rule::NormType;

/// How a norm is summed: in integers, but for `P`, which holds the bits of p.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    One,
    Two,
    Inf,
    P(u32),
}

impl Kind {
    /// Powers of two by which one step of the exponent moves a sum.
    pub(crate) fn align(self) -> u32 {
        match self {
            Kind::One => 1,
            Kind::Two => 2,
            Kind::Inf | Kind::P(_) => 0,
        }
    }
}

impl From<NormType> for Kind {
    fn from(norm: NormType) -> Kind {
        match norm {
            NormType::One => Kind::One,
            NormType::Two => Kind::Two,
            NormType::Inf => Kind::Inf,
            NormType::P(p) => match p as f32 {
                1.0 => Kind::One,
                2.0 => Kind::Two,
                f32::INFINITY => Kind::Inf,
                p => Kind::P(p.to_bits()),
            },
        }
    }
}
