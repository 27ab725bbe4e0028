//! What an arm of `bench` measured: the CPU's or the GPU's times of both regimes.

use gradclip::wgpu;

/// Whether norms exceed the threshold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Regime {
    Clipped,
    NotClipped,
}

impl Regime {
    pub(crate) const BOTH: [Regime; 2] = [Regime::Clipped, Regime::NotClipped];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Regime::Clipped => "clipped",
            Regime::NotClipped => "not clipped",
        }
    }

    /// Bytes an element that have to be moved at least.
    pub(crate) fn bytes(self) -> u64 {
        match self {
            Regime::Clipped => 12,
            Regime::NotClipped => 4,
        }
    }
}

/// Times of one arm in one regime, in seconds.
#[derive(Default)]
pub(crate) struct Times {
    pub(crate) total: Vec<f64>,
    /// On the GPU: time of the CPU to record and submit; of the device for norm and for apply.
    pub(crate) record: Vec<f64>,
    pub(crate) norm: Vec<f64>,
    pub(crate) apply: Vec<f64>,
}

/// One arm's results.
pub(crate) struct Arm {
    pub(crate) adapter: Option<wgpu::AdapterInfo>,
    /// The largest relative error of a norm against f64.
    pub(crate) error: f64,
    /// The norm, where there is one segment.
    pub(crate) norm: Option<f64>,
    pub(crate) dispatches: Option<usize>,
    /// Seconds of the copies, and their bytes read and written.
    pub(crate) copies: Vec<f64>,
    pub(crate) copied: u64,
    pub(crate) regimes: [(Regime, Times); 2],
}

/// Median, least and most.
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

pub(crate) fn spread(values: &[f64]) -> Option<Spread> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (&min, &max) = (sorted.first()?, sorted.last()?);
    let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
    Some(Spread { median: (low + high) / 2.0, min, max })
}

/// One line of results.
pub(crate) struct Line<'a> {
    pub(crate) regime: Regime,
    pub(crate) times: &'a Times,
    pub(crate) total: Spread,
    pub(crate) bytes: u64,
    /// Bytes a second, and those of the copy.
    pub(crate) rate: f64,
    pub(crate) copy: f64,
    /// How many times faster than the CPU.
    pub(crate) speed_up: f64,
}

impl Arm {
    pub(crate) fn device(&self) -> &'static str {
        if self.adapter.is_some() { "gpu" } else { "cpu" }
    }

    /// Bytes a second that a copy reads and writes.
    pub(crate) fn copy(&self) -> Option<f64> {
        spread(&self.copies).map(|s| self.copied as f64 / s.median)
    }

    /// The lines of both regimes, beside those of the CPU.
    pub(crate) fn lines(&self, cpu: &Arm, elements: u64) -> Vec<Line<'_>> {
        let copy = self.copy().unwrap_or(f64::NAN);
        let line = |regime: Regime| {
            let times = self.times(regime)?;
            let total = spread(&times.total)?;
            let bytes = regime.bytes() * elements;
            let rate = bytes as f64 / total.median;
            let speed_up = cpu.total(regime)? / total.median;
            Some(Line { regime, times, total, bytes, rate, copy, speed_up })
        };
        Regime::BOTH.into_iter().filter_map(line).collect()
    }

    fn times(&self, regime: Regime) -> Option<&Times> {
        self.regimes.iter().find(|(r, _)| *r == regime).map(|(_, times)| times)
    }

    /// The median time until the result is there.
    pub(crate) fn total(&self, regime: Regime) -> Option<f64> {
        spread(&self.times(regime)?.total).map(|s| s.median)
    }

    /// The median of the device's own time, by timestamps. Some clocks stand still, and say nothing.
    pub(crate) fn on_device(&self, regime: Regime) -> Option<f64> {
        let times = self.times(regime)?;
        let both: Vec<f64> = times.norm.iter().zip(&times.apply).map(|(norm, apply)| norm + apply).collect();
        spread(&both).map(|s| s.median).filter(|&seconds| seconds > 0.0)
    }
}
