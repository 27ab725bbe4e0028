//! `gradclip suggest`: the norms of a series of steps, a threshold that follows from them, and what rules would have done.

mod panels;
mod picture;
mod rule;
mod rules;
mod series;
mod simulation;
mod stats;
mod step;

use std::path::PathBuf;

use gradclip::{NormType, Target};
use serde_json::{Map, Value, json};

use crate::args::device;
use crate::args::options;
use crate::commands::suggest::panels::Panels;
use crate::commands::suggest::picture::Plot;
use crate::commands::suggest::rules::RuleArgs;
use crate::commands::suggest::simulation::Simulation;
use crate::commands::suggest::stats::{PERCENTILES, Statistics};
use crate::commands::suggest::step::{Measure, Step};
use crate::failure::Failure;
use crate::input::{self, Opened, STANDARD, wrong};
use crate::output::Output;
use crate::progress::Progress;
use crate::summary::norm_value;
use crate::text;

/// Columns of the longest bar.
const BAR: usize = 40;
/// Files left out that are named in the table.
const NAMED: usize = 5;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// In the order of the steps: safetensors files with the gradients of one step each, indexes of such files in
    /// shards, and logs of norms as text, which are a number a line, CSV with a header, or JSON lines; `-` is standard
    /// input. NaN and infinite norms are left out and counted
    #[arg(value_name = "INPUT", required = true)]
    inputs: Vec<PathBuf>,
    /// Column of CSV, or key of JSON lines, that has the norms. Without it the one with numbers, or the one called
    /// norm, grad_norm or the like
    #[arg(long, value_name = "NAME")]
    column: Option<String>,
    /// Norm type: 2, 1, inf or any P above 0
    #[arg(long, value_name = "P", default_value = "2", allow_hyphen_values = true,
        value_parser = options::norm_type)]
    norm: NormType,
    /// Suggest this percentile of the norms, 0 to 100
    #[arg(long, value_name = "P", default_value = "90", allow_hyphen_values = true,
        value_parser = options::percentile)]
    percentile: f64,
    /// Draw the norms by step and their histogram into an SVG file; where rules are simulated, a panel a rule with
    /// its threshold and the steps that it clips and leaves out
    #[arg(long, value_name = "FILE.svg", value_parser = options::svg)]
    plot: Option<PathBuf>,
    #[command(flatten)]
    rules: RuleArgs,
    #[arg(long, value_name = "DEVICE", default_value = "auto", value_parser = device::target,
        help = device::HELP)]
    device: Target,
    /// Print one JSON object instead of the table: device, adapter, backend, norm_type, steps, mean,
    /// std, min, max, percentiles, percentile, suggested, histogram, norms and left_out; where rules are simulated
    /// also rules, of each rule, clipped, skipped, raised, thresholds by step with null for none, and clipped_steps,
    /// skipped_steps and raised_steps counted from 1
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let rules = args.rules.chosen()?;
    let output = args.plot.as_deref().map(|path| Output::prepare("--plot", path)).transpose()?;
    let mut measure = Measure::new(args.norm, &args.device);
    let steps = steps(args, &mut measure)?;
    let norms: Vec<Option<f64>> = steps.iter().map(|step| step.norm).collect();
    let finite: Vec<f64> = norms.iter().copied().flatten().collect();
    let statistics = Statistics::of(&finite).ok_or_else(|| none_left(&steps))?;
    let suggested = suggested(&statistics, args.percentile);
    let simulations = simulation::simulated(&rules, &args.rules, &norms, suggested)?;
    let findings = Findings {
        args,
        measure: &measure,
        steps: &steps,
        statistics: &statistics,
        suggested,
        simulations: &simulations,
    };
    if let Some(output) = output {
        let picture = findings.picture(&norms)?;
        output.commit(|mut to| std::io::Write::write_all(&mut to, picture.as_bytes()))?;
    }
    if args.json { text::print_json(&findings.json()) } else { text::print(&findings.text()) }
}

/// A norm above the largest f32 is no threshold that `--max-norm` takes.
fn suggested(statistics: &Statistics, percentile: f64) -> f64 {
    statistics.percentile(percentile).min(f32::MAX.into())
}

fn steps<'a>(args: &'a Args, measure: &mut Measure<'_>) -> Result<Vec<Step<'a>>, Failure> {
    let mut progress = Progress::new(args.inputs.len() as u64);
    let mut steps = Vec::new();
    let mut logs = 0;
    let mut standard = args.inputs.iter().filter(|path| path.as_os_str() == STANDARD);
    if let (Some(_), Some(path)) = (standard.next(), standard.next()) {
        return Err(wrong("INPUT", path, "expected once, but it is named twice"));
    }
    for path in &args.inputs {
        match input::opened("INPUT", path)? {
            Opened::Set(set) => steps.push(measure.step(path, &set)?),
            Opened::Text(text) => {
                logs += 1;
                steps.extend(
                    series::read(path, &text, args.column.as_deref())?
                        .into_iter()
                        .map(|logged| Step::logged(path, logged)),
                );
            }
        }
        progress.step("inputs");
    }
    match (&args.column, logs) {
        (Some(column), 0) => {
            let column = text::escaped(column);
            Err(Failure::Usage(format!(
                "--column `{column}`: expected an INPUT of CSV or JSON lines, but there is none"
            )))
        }
        _ => Ok(steps),
    }
}

fn none_left(steps: &[Step<'_>]) -> Failure {
    let files: Vec<String> = steps.iter().take(NAMED).map(Step::left_out).collect();
    let more = if steps.len() > NAMED { ", …" } else { "" };
    Failure::NonFinite(format!(
        "INPUT: expected finite gradients in one of them, but {}{more}",
        files.join(", ")
    ))
}

struct Findings<'a> {
    args: &'a Args,
    measure: &'a Measure<'a>,
    steps: &'a [Step<'a>],
    statistics: &'a Statistics,
    suggested: f64,
    /// Of the rules that were asked for, if any.
    simulations: &'a [Simulation],
}

impl Findings<'_> {
    /// Of the rules where there are some, else of the norms.
    fn picture(&self, norms: &[Option<f64>]) -> Result<String, Failure> {
        let kind = options::norm_name(self.args.norm);
        if !self.simulations.is_empty() {
            let skip_above = self.args.rules.skip_above();
            return panels::svg(&Panels { norms, kind: &kind, simulations: self.simulations, skip_above });
        }
        let percentile = (self.args.percentile, self.suggested);
        picture::svg(&Plot { norms, statistics: self.statistics, kind: &kind, percentile })
    }

    fn left_out(&self) -> impl Iterator<Item = &Step<'_>> {
        self.steps.iter().filter(|step| step.norm.is_none())
    }

    fn json(&self) -> Value {
        let (statistics, adapter) = (self.statistics, self.measure.adapter());
        let percentiles: Map<String, Value> = PERCENTILES
            .iter()
            .map(|p| (p.to_string(), statistics.percentile(f64::from(*p)).into()))
            .collect();
        let histogram = &statistics.histogram;
        let mut findings = json!({
            "device": if adapter.is_some() { "gpu" } else { "cpu" },
            "adapter": adapter.map(|info| info.name.as_str()),
            "backend": adapter.map(|info| info.backend.to_string()),
            "norm_type": norm_type(self.args.norm),
            "steps": statistics.steps(),
            "mean": statistics.mean,
            "std": statistics.deviation,
            "min": statistics.least(),
            "max": statistics.largest(),
            "percentiles": percentiles,
            "percentile": self.args.percentile,
            "suggested": self.suggested,
            "histogram": {
                "scale": if histogram.log { "log" } else { "linear" },
                "edges": histogram.edges,
                "counts": histogram.counts,
            },
            "norms": self.steps.iter().map(Step::norm_json).collect::<Vec<Value>>(),
            "left_out": self.left_out().map(Step::left_out_json).collect::<Vec<Value>>(),
        });
        if !self.simulations.is_empty() {
            findings["rules"] = self.simulations.iter().map(Simulation::json).collect();
        }
        findings
    }

    fn text(&self) -> String {
        let found = format!("{}\n{}", text::pairs(&self.facts()), self.histogram());
        match self.simulations {
            [] => found,
            simulations => format!("{found}\n\n{}", simulation::table(simulations)),
        }
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let statistics = self.statistics;
        let all = statistics.steps() as u64;
        let exceeded = |threshold: f64| {
            format!("exceeded in {} of {}", statistics.above(threshold), text::counted(all, "step"))
        };
        let mut facts = vec![
            ("adapter", self.measure.words()),
            ("steps", format!("{}, {} norms", text::count(all), options::norm_name(self.args.norm))),
        ];
        let left_out: Vec<String> = self.left_out().map(Step::left_out).collect();
        facts.extend(left_out.iter().take(NAMED).map(|file| ("left out", file.clone())));
        if left_out.len() > NAMED {
            facts.push(("", text::counted((left_out.len() - NAMED) as u64, "more step")));
        }
        facts.push(("standard deviation", text::short(statistics.deviation)));
        facts.push(("minimum", text::short(statistics.least())));
        facts.extend(
            NAMES
                .into_iter()
                .zip(PERCENTILES)
                .map(|(name, p)| (name, text::short(statistics.percentile(p.into())))),
        );
        facts.push(("maximum", text::short(statistics.largest())));
        let (mean, suggested) = (statistics.mean, self.suggested);
        facts.push(("mean", format!("{}, {}; the usual first guess", text::short(mean), exceeded(mean))));
        let why = format!("percentile {}, {}", self.args.percentile, exceeded(suggested));
        facts.push(("suggested", format!("--max-norm {}: {why}", text::short(suggested))));
        facts.extend(self.args.plot.iter().map(|path| ("plot", text::path(path))));
        facts
    }

    fn histogram(&self) -> String {
        let histogram = &self.statistics.histogram;
        let most = histogram.counts.iter().copied().max().unwrap_or(1);
        let marked = histogram.bin(self.suggested);
        let rows = histogram.counts.iter().enumerate().map(|(i, &count)| {
            vec![
                text::rough(histogram.edges[i]),
                text::rough(histogram.edges[i + 1]),
                text::count(count),
                text::bar(count as f64 / most as f64, BAR),
                (if i == marked { "suggested" } else { "" }).to_owned(),
            ]
        });
        text::table(&["norms from", "to", "steps", "", ""], 0..3, rows.collect())
    }
}

/// What the percentiles are called, in their order.
const NAMES: [&str; PERCENTILES.len()] = [
    "percentile 10",
    "percentile 25",
    "percentile 50",
    "percentile 75",
    "percentile 90",
    "percentile 95",
    "percentile 99",
];

/// The number that `--norm` takes, infinity as text.
fn norm_type(norm: NormType) -> Value {
    match norm {
        NormType::One => 1.into(),
        NormType::Two => 2.into(),
        // By its shortest digits as f32.
        NormType::P(p) => p.to_string().parse::<f64>().map_or(Value::Null, norm_value),
        _ => norm_value(f64::INFINITY),
    }
}
