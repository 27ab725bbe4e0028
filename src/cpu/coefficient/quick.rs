//! What a unit over its limit is multiplied by, in floating point, where that is surely what integers make of it.

use crate::clip::Summation;
use crate::cpu::lanes::toward_zero;
use crate::layout::{RULE_NORM, Setting};
use crate::real::Rounded;

/// Norms from this on, of elements, have a sum whose last bits are far below its own: of the largest element some bits count.
const LEAST: f64 = 1.0 / (1u128 << 100) as f64;

/// A limit that norms are compared with, as `f32`, and how far what integers compute may be from what an `f64` holds.
#[derive(Clone, Copy)]
pub(crate) struct Quick {
    squares: bool,
    /// Down for factors and up for norms, not to nearest.
    below: bool,
    limit: f32,
    eps: f32,
    unscale: f64,
    /// Between these times the norm is what integers round.
    norms: [f64; 2],
    /// The same of the factor.
    factors: [f64; 2],
}

impl Quick {
    /// None for what is not a product by limit / (norm + eps), or not in the range of normal `f32`.
    ///
    /// Integers keep 32 bits of a norm and 29 of a quotient, and what lies below as stickiness, so that one rounding of either is
    /// right. Multiplied by what is not a power of two these may be too small by a unit of the last, and of the next one. A norm
    /// that nothing may be above is enlarged by 2^-26, and by up to four units of 32 bits.
    pub(super) fn new(setting: &Setting, limit: Rounded, summation: Summation) -> Option<Quick> {
        let below = setting.below == 1;
        let squares = match summation {
            Summation::One => false,
            Summation::Two => true,
            Summation::Inf | Summation::P(_) => return None,
        };
        let exact = limit.to_f64();
        let limit = exact as f32;
        if setting.rule != RULE_NORM || !limit.is_normal() || f64::from(limit) != exact {
            return None;
        }
        // An eps in the sum would be one more rounding up.
        if below && setting.eps != 0.0 {
            return None;
        }
        let share = |power: i32| 2f64.powi(power);
        let power_of_two = setting.unscale.is_normal() && setting.unscale.to_bits().trailing_zeros() >= 23;
        let norms = match (below, power_of_two) {
            (true, _) => [1.0 - share(-40), 1.0 + share(-29) + share(-40)].map(|by| by * (1.0 + share(-26))),
            (false, true) => [1.0 - share(-40), 1.0 + share(-40)],
            (false, false) => [1.0 - share(-29), 1.0 + share(-40)],
        };
        let least = if power_of_two { share(-50) } else { 1.5 * share(-28) };
        let factors = [1.0 - least, 1.0 + share(-50)];
        let unscale = f64::from(setting.unscale);
        Some(Quick { squares, below, limit, eps: setting.eps, unscale, norms, factors })
    }

    /// The factor of elements whose magnitudes or squares add up to within 2^-40 of this; none where their norm is not surely over
    /// the limit, or the factor not surely this one.
    #[inline]
    pub(crate) fn scale(&self, sum: f64) -> Option<f32> {
        let root = if self.squares { sum.sqrt() } else { sum };
        let norm = surely(root * self.unscale, self.norms, |x| if self.below { up(x) } else { x as f32 })?;
        let divisor = norm + self.eps;
        let quotient = f64::from(self.limit) / f64::from(divisor) * self.unscale;
        let factor = surely(quotient, self.factors, |x| if self.below { toward_zero(x) } else { x as f32 })?;
        (root >= LEAST && norm > self.limit && factor < f32::MAX).then_some(factor)
    }
}

/// What everything between both multiples of a value rounds to, if that is one normal `f32`.
#[inline]
fn surely(value: f64, [least, most]: [f64; 2], round: impl Fn(f64) -> f32) -> Option<f32> {
    let (low, high) = (round(value * least), round(value * most));
    (low == high && low.is_normal()).then_some(low)
}

/// The smallest `f32` that is not below a positive number.
#[inline]
fn up(value: f64) -> f32 {
    let near = value as f32;
    f32::from_bits(near.to_bits() + u32::from(f64::from(near) < value))
}
