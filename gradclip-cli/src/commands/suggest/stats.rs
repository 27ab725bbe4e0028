//! What a series of norms is like: moments, percentiles, a histogram.

/// The percentiles that are always told.
pub(crate) const PERCENTILES: [u8; 7] = [10, 25, 50, 75, 90, 95, 99];
/// Norms that span more than this factor get bins of equal ratio.
const DECADES: f64 = 100.0;

/// Finite norms and what was computed of them.
#[derive(Debug)]
pub(crate) struct Statistics {
    sorted: Vec<f64>,
    pub(crate) mean: f64,
    /// Of the norms themselves, not an estimate for others: the divisor is their number.
    pub(crate) deviation: f64,
    pub(crate) histogram: Histogram,
}

/// Bin `i` holds the norms from `edges[i]` to below `edges[i + 1]`, the last one also that of its end.
#[derive(Debug, PartialEq)]
pub(crate) struct Histogram {
    pub(crate) edges: Vec<f64>,
    pub(crate) counts: Vec<u64>,
    /// Whether bins have equal ratios rather than equal widths. Zeros are then in the first.
    pub(crate) log: bool,
}

impl Statistics {
    /// `None` without any norm.
    pub(crate) fn of(norms: &[f64]) -> Option<Statistics> {
        let mut sorted = norms.to_vec();
        sorted.sort_by(f64::total_cmp);
        let histogram = Histogram::of(&sorted)?;
        let n = sorted.len() as f64;
        let mean = sorted.iter().sum::<f64>() / n;
        let variance = sorted.iter().map(|norm| (norm - mean).powi(2)).sum::<f64>() / n;
        Some(Statistics { sorted, mean, deviation: variance.sqrt(), histogram })
    }

    pub(crate) fn steps(&self) -> usize {
        self.sorted.len()
    }

    pub(crate) fn least(&self) -> f64 {
        self.percentile(0.0)
    }

    pub(crate) fn largest(&self) -> f64 {
        self.percentile(100.0)
    }

    /// Norms above `threshold`.
    pub(crate) fn above(&self, threshold: f64) -> usize {
        self.sorted.len() - self.sorted.partition_point(|&norm| norm <= threshold)
    }

    /// A percentile from 0 to 100, between two norms interpolated as numpy does.
    pub(crate) fn percentile(&self, percentile: f64) -> f64 {
        let last = self.sorted.len() - 1;
        let place = (percentile / 100.0 * last as f64).clamp(0.0, last as f64);
        let (below, share) = (place as usize, place.fract());
        let (a, b) = (self.sorted[below], self.sorted[(below + 1).min(last)]);
        if share < 0.5 { a + (b - a) * share } else { b - (b - a) * (1.0 - share) }
    }
}

impl Histogram {
    /// As many bins as Sturges has: one more than the binary logarithm of the number.
    fn of(sorted: &[f64]) -> Option<Histogram> {
        let (&least, &largest) = (sorted.first()?, sorted.last()?);
        let positive = sorted.iter().copied().find(|&norm| norm > 0.0).unwrap_or(largest);
        let log = largest / positive > DECADES;
        let bins = if least == largest {
            1
        } else {
            1 + sorted.len().ilog2() as usize + usize::from(!sorted.len().is_power_of_two())
        };
        let edge = |i: usize| {
            let share = i as f64 / bins as f64;
            match i {
                0 => least,
                _ if i == bins => largest,
                _ if log => positive * (largest / positive).powf(share),
                _ => least + (largest - least) * share,
            }
        };
        let edges: Vec<f64> = (0..=bins).map(edge).collect();
        let mut counts = vec![0; bins];
        for norm in sorted {
            counts[edges[1..bins].partition_point(|edge| edge <= norm)] += 1;
        }
        Some(Histogram { edges, counts, log })
    }

    /// The bin that a norm within the edges is in.
    pub(crate) fn bin(&self, norm: f64) -> usize {
        self.edges[1..self.counts.len()].partition_point(|&edge| edge <= norm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(norms: &[f64]) -> Statistics {
        Statistics::of(norms).unwrap()
    }

    /// The expected values are numpy's.
    #[test]
    fn percentiles_are_interpolated() {
        let norms = of(&[7.0, 1.0, 4.0, 2.0]);
        let expected =
            [(0.0, 1.0), (10.0, 1.3), (25.0, 1.75), (50.0, 3.0), (75.0, 4.75), (90.0, 6.1), (100.0, 7.0)];
        for (percentile, value) in expected {
            assert!((norms.percentile(percentile) - value).abs() < 1e-12, "{percentile}");
        }
        assert_eq!((norms.mean, norms.deviation), (3.5, 5.25f64.sqrt()));
        assert_eq!((norms.above(4.0), norms.above(0.5), norms.above(7.0)), (1, 4, 0));
        assert_eq!(of(&[3.0]).percentile(90.0), 3.0);
        assert!(Statistics::of(&[]).is_none());
    }

    #[test]
    fn bins_hold_every_norm_once() {
        let linear = of(&[1.0, 2.0, 2.5, 4.0, 5.0]).histogram;
        assert_eq!(
            linear,
            Histogram { edges: vec![1.0, 2.0, 3.0, 4.0, 5.0], counts: vec![1, 2, 0, 2], log: false }
        );
        let log = of(&[0.0, 1.0, 10.0, 100.0, 10_000.0]).histogram;
        assert!(log.log);
        assert_eq!(log.counts, [2, 1, 1, 1]);
        assert_eq!((log.edges[0], log.edges[4]), (0.0, 10_000.0));
        assert!((log.edges[1] - 10.0).abs() < 1e-9);
        for same in [&[2.0, 2.0][..], &[0.0], &[3e39]] {
            let one = of(same).histogram;
            assert_eq!((one.counts, one.log), (vec![same.len() as u64], false));
        }
    }
}
