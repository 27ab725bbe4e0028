//! An axis with ticks at round numbers, linear or logarithmic.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

use crate::text;

/// Space that is left beyond the first and the last value, as a share of the axis.
const MARGIN: f64 = 0.04;
/// Below this many powers of ten there are ticks between them.
const FEW_DECADES: i32 = 5;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scale {
    Linear,
    /// Linear, with ticks at whole numbers only.
    Whole,
    Log,
}

#[derive(Clone, Debug)]
pub(crate) struct Axis {
    low: f64,
    high: f64,
    scale: Scale,
}

impl Axis {
    /// From `low` to `high` exactly.
    pub(crate) fn exactly(low: f64, high: f64, scale: Scale) -> Axis {
        Axis { low, high, scale }
    }

    /// From `least` to `largest` with some space around them, but not to below 0. Both are above 0 for
    /// [`Scale::Log`].
    pub(crate) fn around(least: f64, largest: f64, scale: Scale) -> Axis {
        if scale == Scale::Log && least < largest {
            let space = (largest / least).powf(MARGIN);
            return Axis { low: least / space, high: largest * space, scale };
        }
        let space = match largest - least {
            0.0 if largest == 0.0 => 1.0,
            0.0 => largest / 10.0,
            length => length * MARGIN,
        };
        Axis { low: (least - space).max(0.0), high: largest + space, scale }
    }

    /// Numbers from 1.
    pub(crate) fn counting(last: usize) -> Axis {
        let last = last.max(1) as f64;
        Axis { low: 0.5, high: last + (last * MARGIN).max(0.5), scale: Scale::Whole }
    }

    pub(crate) fn low(&self) -> f64 {
        self.low
    }

    pub(crate) fn high(&self) -> f64 {
        self.high
    }

    /// At most about `most` round numbers.
    fn ticks(&self, most: usize) -> Vec<f64> {
        let most = most.max(2) as f64;
        let ticks: Vec<f64> = match self.scale {
            Scale::Log => decades(self.low, self.high, most),
            _ => {
                let mut step = round_up((self.high - self.low) / most);
                if self.scale == Scale::Whole {
                    step = step.max(1.0);
                }
                let first = (self.low / step).ceil();
                let count = ((self.high / step).floor() - first).clamp(0.0, 100.0) as i32;
                (0..=count).map(|i| (first + f64::from(i)) * step).collect()
            }
        };
        ticks.into_iter().filter(|tick| (self.low..=self.high).contains(tick)).collect()
    }
}

/// The next 1, 2 or 5 times a power of ten.
fn round_up(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    [1.0, 2.0, 5.0]
        .map(|digit| digit * power)
        .into_iter()
        .find(|&s| s >= step * (1.0 - 1e-9))
        .unwrap_or(10.0 * power)
}

/// Powers of ten, every one or every few; with 2 and 5 times them where there are few, and room for them.
fn decades(low: f64, high: f64, most: f64) -> Vec<f64> {
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    let few = last - first < FEW_DECADES && f64::from(3 * (last - first)) <= 2.0 * most;
    let digits: &[f64] = if few { &[1.0, 2.0, 5.0] } else { &[1.0] };
    let stride = (f64::from(last - first) / most).ceil().max(1.0) as usize;
    (first..=last).step_by(stride).flat_map(|k| digits.iter().map(move |d| d * 10f64.powi(k))).collect()
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    /// Values beyond the ends lie on them.
    fn map(&self, value: &f64, pixels: (i32, i32)) -> i32 {
        let share = match self.scale {
            Scale::Log => (value.max(self.low) / self.low).ln() / (self.high / self.low).ln(),
            _ => (value - self.low) / (self.high - self.low),
        };
        let length = f64::from(pixels.1 - pixels.0);
        pixels.0 + (length * share.clamp(0.0, 1.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        // Finer grid lines without numbers would say nothing.
        if hint.weight().allow_light_points() { Vec::new() } else { self.ticks(hint.bold_points()) }
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        text::short(*value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round() {
        assert_eq!(Axis::exactly(0.9, 7.3, Scale::Linear).ticks(4), [2.0, 4.0, 6.0]);
        assert_eq!(Axis::exactly(0.5, 3.5, Scale::Whole).ticks(10), [1.0, 2.0, 3.0]);
        assert_eq!(
            Axis::exactly(0.5, 300.0, Scale::Log).ticks(10),
            [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0]
        );
        assert_eq!(Axis::exactly(0.5, 300.0, Scale::Log).ticks(4), [1.0, 10.0, 100.0]);
        let wide = Axis::exactly(1e-3, 1e9, Scale::Log).ticks(6);
        assert!(wide.len() == 7 && (wide[1] / 0.1 - 1.0).abs() < 1e-12, "{wide:?}");
        // The range of all norms there are.
        for (low, high) in [(0.0, 1e39), (1e-45, 1e-44), (5.0, 5.0), (0.0, 0.0), (3e39, 3.1e39)] {
            let axis = Axis::around(low, high, Scale::Linear);
            assert!((1..20).contains(&axis.ticks(6).len()), "{axis:?}");
        }
    }

    #[test]
    fn values_beyond_the_ends_stay_inside() {
        let axis = Axis::exactly(1.0, 100.0, Scale::Log);
        let at = |value: f64| axis.map(&value, (200, 100));
        assert_eq!([at(0.0), at(1.0), at(10.0), at(100.0), at(1e9)], [200, 200, 150, 100, 100]);
    }
}
