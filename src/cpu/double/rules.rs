//! What a clip says, in the numbers of this path.

use crate::clip::{Clip, NonFinite, Rule};
use crate::segments::{Limit, Segments};
use crate::tensor::DType;

use super::norm::Norm;
use super::real::{Real, Towards};

/// The bits of the largest magnitude that unscaling leaves finite, by element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Most {
    pub(super) double: u64,
    /// Of `f32` and 16-bit elements, which are unscaled to `f32`.
    pub(super) single: u64,
}

impl Most {
    /// For what is not unscaled.
    pub(super) const FINITE: u64 = f64::MAX.to_bits();

    /// Multiplied by `unscale` and rounded to nearest, an element above this becomes infinite.
    pub(super) fn new(unscale: f64) -> Most {
        // Half a unit above the largest `f32` rounds to even, which is 2^128.
        let overflow = Real::new((1 << 25) - 1, 103, false).round(i32::MIN / 4, Towards::Zero);
        let single = |x: f64| {
            // Bits that are cut off below the 25 of the other change nothing.
            let product = Real::from_f64(x).multiply(Real::from_f64(unscale));
            !overflow.exceeds(product.round(i32::MIN / 4, Towards::Zero))
        };
        Most { double: last(|x| (x * unscale).is_infinite()), single: last(single) }
    }

    pub(super) fn of(self, dtype: DType) -> u64 {
        if dtype == DType::F64 { self.double } else { self.single }
    }
}

/// The bits of the largest finite magnitude for which `overflows` does not hold; it never does for small
/// ones only.
fn last(overflows: impl Fn(f64) -> bool) -> u64 {
    let (mut low, mut high) = (0, f64::MAX.to_bits());
    if !overflows(f64::MAX) {
        return high;
    }
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if overflows(f64::from_bits(middle)) { high = middle } else { low = middle }
    }
    low
}

/// A clip.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rules {
    pub(super) norm: Norm,
    pub(super) unscale: f64,
    pub(super) most: Most,
    pub(super) eps: f64,
    pub(super) policy: NonFinite,
    pub(super) never_above: bool,
}

impl Rules {
    pub(super) fn new(clip: &Clip) -> Rules {
        let unscale = clip.unscale;
        Rules {
            norm: clip.norm.into(),
            unscale,
            most: Most::new(unscale),
            eps: clip.eps.abs(),
            policy: clip.non_finite,
            never_above: clip.is_never_above(),
        }
    }

    /// Where products, coefficients and limits are rounded to.
    pub(super) fn towards(&self) -> Towards {
        if self.never_above { Towards::Zero } else { Towards::Nearest }
    }
}

/// What a segment is limited to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Setting {
    /// None where it is only measured.
    pub(super) limit: Option<Real>,
    pub(super) rule: Rule,
    /// Measured and unscaled, whatever the rule, and not in the total.
    pub(super) free: bool,
}

impl Setting {
    pub(super) fn of(limit: &Limit, threshold: f64, clip: &Clip) -> Setting {
        if limit.excluded {
            return Setting { limit: None, rule: Rule::Norm, free: true };
        }
        Setting { limit: limit_of(threshold, limit.elements, clip.rule), rule: clip.rule, free: false }
    }

    /// That of the whole set.
    pub(super) fn of_total(parts: &Segments, clip: &Clip) -> Option<Setting> {
        let threshold = clip.total.unwrap_or(f64::INFINITY);
        parts.total.then(|| Setting {
            limit: limit_of(threshold, 1, Rule::Norm),
            rule: Rule::Norm,
            free: false,
        })
    }
}

fn limit_of(threshold: f64, elements: u64, rule: Rule) -> Option<Real> {
    if threshold.is_infinite() {
        return None;
    }
    let threshold = Real::from_f64(threshold);
    let n = u128::from(elements.max(1));
    Some(match rule {
        Rule::Rms => threshold.multiply(Real::square_root(n, 0, false)),
        Rule::Average => threshold.multiply(Real::new(n, 0, false)),
        _ => threshold,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The last magnitudes next to the first that overflow, found another way: by hardware for factors
    /// whose products with an `f32` are exact.
    #[test]
    fn the_last_magnitude_that_stays_finite() {
        for unscale in [1.0, 0.5, 2.0, 3.0, 1.5, 1000.0, 65536.0, 1.0 + f64::from(f32::EPSILON), 1e300] {
            let Most { double, single } = Most::new(unscale);
            let (last, next) = (f64::from_bits(double), f64::from_bits(double + 1));
            assert!((last * unscale).is_finite() && (next * unscale).is_infinite(), "{unscale}");
            if unscale < 1e38 {
                let last = f64::from_bits(single) as f32;
                let last = if f64::from(last) > f64::from_bits(single) { last.next_down() } else { last };
                let rounds = |x: f32| (f64::from(x) * unscale) as f32;
                assert!(rounds(last).is_finite(), "{unscale}");
                let next = last.next_up();
                assert!(next.is_infinite() || rounds(next).is_infinite(), "{unscale}");
            }
        }
        assert_eq!(Most::new(1.0).double, f64::MAX.to_bits());
    }
}
