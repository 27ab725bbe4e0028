//! Where two lines of times cross, and who is faster on either side.

use serde_json::{Value, json};

use crate::commands::bench::arm::Regime;
use crate::text;

/// A point: elements, seconds.
type Place = (f64, f64);

/// Who is faster where in one regime.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) regime: Regime,
    /// Where the lines cross, ascending.
    pub(crate) crossings: Vec<Place>,
    /// The smallest and the largest size.
    range: (f64, f64),
    /// Who is faster at those.
    faster: (&'static str, &'static str),
}

impl Verdict {
    /// Of two lines with points at the same sizes. `None` where there are no points.
    pub(crate) fn new(regime: Regime, cpu: &[Place], gpu: &[Place]) -> Option<Verdict> {
        let pairs: Vec<(Place, Place)> = cpu.iter().copied().zip(gpu.iter().copied()).collect();
        let (first, last) = (pairs.first()?, pairs.last()?);
        let faster = |(cpu, gpu): &(Place, Place)| if gpu.1 < cpu.1 { "gpu" } else { "cpu" };
        Some(Verdict {
            regime,
            crossings: pairs.windows(2).filter_map(|pair| crossing(pair[0], pair[1])).collect(),
            range: (first.0.0, last.0.0),
            faster: (faster(first), faster(last)),
        })
    }

    /// A line for people.
    pub(crate) fn text(&self) -> String {
        let (regime, faster) = (self.regime.name(), self.faster.1.to_uppercase());
        let sizes: Vec<String> = self.crossings.iter().map(|place| elements(place.0)).collect();
        match &sizes[..] {
            [] => {
                let (least, most) = (text::count(self.range.0 as u64), text::count(self.range.1 as u64));
                format!("{regime}: no crossover from {least} to {most} elements, {faster} faster throughout")
            }
            [one] => format!("{regime}: crossover at {one} elements, {faster} faster above"),
            several => {
                let all = several.join("; ");
                format!("{regime}: crossovers at {all} elements, {faster} faster above the last")
            }
        }
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "regime": self.regime.name(),
            "elements": self.crossings.iter().map(|place| place.0.round()).collect::<Vec<f64>>(),
            "faster_below": self.faster.0,
            "faster_above": self.faster.1,
        })
    }
}

/// A number of elements where lines cross, to three digits.
pub(crate) fn elements(n: f64) -> String {
    let unit = 10f64.powf(n.max(1.0).log10().floor() - 2.0).max(1.0);
    text::count(((n / unit).round() * unit) as u64)
}

/// Where lines between two sizes cross, both axes logarithmic.
fn crossing(from: (Place, Place), to: (Place, Place)) -> Option<Place> {
    let apart = |(cpu, gpu): (Place, Place)| cpu.1.ln() - gpu.1.ln();
    let (before, after) = (apart(from), apart(to));
    if (before > 0.0) == (after > 0.0) {
        return None;
    }
    let share = before / (before - after);
    let between = |a: f64, b: f64| (a.ln() + share * (b / a).ln()).exp();
    Some((between(from.0.0, to.0.0), between(from.0.1, to.0.1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(cpu: [f64; 3], gpu: [f64; 3]) -> Option<Verdict> {
        let line = |seconds: [f64; 3]| [1e3, 1e5, 1e7].into_iter().zip(seconds).collect::<Vec<Place>>();
        Verdict::new(Regime::Clipped, &line(cpu), &line(gpu))
    }

    #[test]
    fn lines_cross_where_their_times_are_the_same() {
        let one = verdict([1.0, 100.0, 1e4], [10.0, 10.0, 10.0]);
        let crossings = one.as_ref().map(|v| v.crossings.clone()).unwrap_or_default();
        assert!(crossings.len() == 1, "{crossings:?}");
        assert!((crossings[0].0 / 1e4 - 1.0).abs() < 1e-9 && (crossings[0].1 / 10.0 - 1.0).abs() < 1e-9);
        let text = |v: Option<Verdict>| v.map(|v| v.text()).unwrap_or_default();
        assert_eq!(text(one), "clipped: crossover at 10,000 elements, GPU faster above");
        assert_eq!(
            text(verdict([1.0, 3.0, 1.0], [2.0, 2.0, 2.0])),
            "clipped: crossovers at 18,300; 547,000 elements, CPU faster above the last"
        );
        assert_eq!(
            text(verdict([1.0; 3], [2.0; 3])),
            "clipped: no crossover from 1,000 to 10,000,000 elements, CPU faster throughout"
        );
        assert!(Verdict::new(Regime::Clipped, &[], &[]).is_none());
    }
}
