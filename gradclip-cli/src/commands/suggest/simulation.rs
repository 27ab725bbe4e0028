//! What rules would have done over the series: the library's own, a step at a time.

use gradclip::cpu::{self, GradMut};
use gradclip::{Clip, History, Report};
use rayon::prelude::*;
use serde_json::{Value, json};

use crate::args::precision::Precision;
use crate::commands::suggest::rule::Rule;
use crate::commands::suggest::rules::RuleArgs;
use crate::failure::Failure;
use crate::text;

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fate {
    Kept,
    Clipped,
    /// Multiplied by more than 1, which AGGC does.
    Raised,
    /// For a spike, or for what is not finite.
    Skipped,
}

/// A step under a rule.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Acted {
    pub(crate) fate: Fate,
    /// Infinite where nothing was limited.
    pub(crate) threshold: f64,
    coefficient: f64,
}

/// A rule over all steps.
#[derive(Debug)]
pub(crate) struct Simulation {
    /// The rule as one would type it.
    pub(crate) rule: String,
    pub(crate) steps: Vec<Acted>,
}

/// Rules with what the options say of all of them. A norm is `None` where gradients were not finite.
pub(crate) fn simulated(
    rules: &[Rule],
    args: &RuleArgs,
    norms: &[Option<f64>],
    suggested: f64,
) -> Result<Vec<Simulation>, Failure> {
    let simulation = |rule: &Rule| {
        let steps = acted(&args.clip(*rule, suggested), norms)?;
        Ok(Simulation { rule: rule.words(suggested), steps })
    };
    rules.par_iter().map(simulation).collect()
}

/// Gradients of one element have the norm of that.
fn acted(clip: &Clip, norms: &[Option<f64>]) -> Result<Vec<Acted>, Failure> {
    let mut history = History::default();
    let act = |norm: &Option<f64>| {
        let mut gradient = [norm.map_or(f32::NAN, |norm| norm.min(f32::MAX.into()) as f32)];
        let report = cpu::clip_with(&mut [GradMut::new("norm", &mut gradient)], clip, &mut history)?;
        Ok(Acted::of(&report))
    };
    norms.iter().map(act).collect()
}

impl Acted {
    fn of(report: &Report) -> Acted {
        // A single gradient is a single segment.
        let segment = &report.segments[0];
        let left_out = report.skip.is_some_and(|skip| skip.left_out());
        let fate = match segment {
            segment if segment.skipped || left_out => Fate::Skipped,
            segment if segment.clipped => Fate::Clipped,
            segment if segment.coefficient > 1.0 => Fate::Raised,
            _ => Fate::Kept,
        };
        Acted { fate, threshold: segment.threshold, coefficient: segment.coefficient }
    }
}

impl Simulation {
    pub(crate) fn count(&self, fate: Fate) -> usize {
        self.steps.iter().filter(|step| step.fate == fate).count()
    }

    /// Numbers of steps, from 1.
    fn numbers(&self, fate: Fate) -> Vec<usize> {
        let of_fate = self.steps.iter().enumerate().filter(|(_, step)| step.fate == fate);
        of_fate.map(|(i, _)| i + 1).collect()
    }

    /// What half of the clipped steps were multiplied by at most; of two in the middle, their mean.
    fn median_coefficient(&self) -> Option<f64> {
        let clipped = self.steps.iter().filter(|step| step.fate == Fate::Clipped);
        let mut coefficients: Vec<f64> = clipped.map(|step| step.coefficient).collect();
        coefficients.sort_by(f64::total_cmp);
        let last = coefficients.len().checked_sub(1)?;
        Some((coefficients[last / 2] + coefficients[last.div_ceil(2)]) / 2.0)
    }

    pub(crate) fn json(&self) -> Value {
        // Infinity is no number of JSON, and becomes null.
        let threshold = |step: &Acted| Precision::Single.shortest(step.threshold);
        json!({
            "rule": self.rule,
            "clipped": self.count(Fate::Clipped),
            "skipped": self.count(Fate::Skipped),
            "raised": self.count(Fate::Raised),
            "thresholds": self.steps.iter().map(threshold).collect::<Vec<Value>>(),
            "clipped_steps": self.numbers(Fate::Clipped),
            "skipped_steps": self.numbers(Fate::Skipped),
            "raised_steps": self.numbers(Fate::Raised),
        })
    }

    fn row(&self, raised: bool) -> Vec<String> {
        let count = |fate| text::count(self.count(fate) as u64);
        let share = 100.0 * self.count(Fate::Clipped) as f64 / self.steps.len() as f64;
        let mut row = vec![self.rule.clone(), count(Fate::Clipped), format!("{share:.1} %")];
        row.extend(raised.then(|| count(Fate::Raised)));
        row.push(count(Fate::Skipped));
        row.push(self.steps.last().map_or(String::new(), |step| match step.threshold {
            threshold if threshold.is_infinite() => "none".into(),
            threshold => text::rough(threshold),
        }));
        row.push(self.median_coefficient().map_or(String::new(), text::rough));
        row
    }
}

/// Rule beside rule; steps that are raised only where a rule raises.
pub(crate) fn table(simulations: &[Simulation]) -> String {
    let raised = simulations.iter().any(|simulation| simulation.count(Fate::Raised) > 0);
    let mut header = vec!["rule", "clipped", "of steps", "skipped", "last threshold", "median coefficient"];
    if raised {
        header.insert(3, "raised");
    }
    let rows = simulations.iter().map(|simulation| simulation.row(raised)).collect();
    text::table(&header, 1..header.len(), rows)
}
