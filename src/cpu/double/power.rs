//! Norms with any p, in `f64` relative to the largest element: neither overflow nor underflow, but not
//! promised to the bit.

use super::real::{Real, Towards};

/// The largest magnitude's bits, and the sum of (|g| / largest)^p.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Powers {
    largest: u64,
    sum: f64,
}

impl Powers {
    pub(super) fn new(largest: u64, sum: f64) -> Powers {
        Powers { largest, sum }
    }

    /// Of finite magnitudes.
    pub(super) fn of(magnitudes: &[u64], largest: u64, p: f64) -> Powers {
        Powers { largest, sum: magnitudes.iter().map(|&m| power_of_ratio(m, largest, p)).sum() }
    }

    pub(super) fn merge(self, other: Powers, p: f64) -> Powers {
        let largest = self.largest.max(other.largest);
        let scaled = |own: Powers| own.sum * power_of_ratio(own.largest, largest, p);
        Powers { largest, sum: scaled(self) + scaled(other) }
    }

    /// largest * sum^(1/p).
    pub(super) fn norm(self, p: f64) -> Real {
        if self.largest == 0 {
            return Real::ZERO;
        }
        // At least the largest element's own power, 1; at most far beyond any f64, so that the power of
        // two stays an integer.
        let log = (self.sum.log2() / p).clamp(0.0, 1e6);
        let fraction = (log - log.floor()).exp2().min(2f64.next_down());
        let largest = Real::from_f64(f64::from_bits(self.largest));
        largest.multiply(Real::from_f64(fraction)).times_power_of_two(log.floor() as i32)
    }

    /// Above what [`Powers::norm`] can be wrong by: sums of up to 2^20 blocks lose less than 2^-31 of the
    /// powers, of the norm 1/p times that.
    pub(super) fn norm_at_most(self, p: f64) -> Real {
        let margin = Real::from_f64(1.0 + 2f64.powi(-30) * (1.0 + 1.0 / p));
        let above = self.norm(p).raised(0).multiply(margin).round(i32::MIN / 4, Towards::Infinity);
        above.to_real()
    }
}

/// (magnitude / largest)^p.
fn power_of_ratio(magnitude: u64, largest: u64, p: f64) -> f64 {
    if magnitude == 0 { 0.0 } else { (f64::from_bits(magnitude) / f64::from_bits(largest)).powf(p) }
}
