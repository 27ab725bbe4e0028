//! What `bench` measured, for people and as JSON.

use std::path::Path;

use gradclip::adapter_name;
use serde_json::{Value, json};

use crate::commands::bench::arm::{Arm, Line, spread};
use crate::commands::bench::crossing::Verdict;
use crate::commands::bench::sweep::Sweep;
use crate::commands::bench::work::Work;
use crate::text;

const NOTES: &str = "\
Bytes are counted as 4 an element (norm) and 12 where it clips (norm, read and write), whatever was\n\
really moved. Copy is an in-place multiply on all cores, or buffer to buffer on the GPU, over 64 MiB\n\
or more, in the same run. Speed-up is the CPU's time divided by this one. Gradients lie where they\n\
are clipped, and are restored outside the timing. Clipped: every segment is, else none. The error is\n\
that of the norms against f64, the largest.";

pub(crate) struct Findings<'a> {
    pub(crate) name: &'a str,
    pub(crate) scope: &'a str,
    pub(crate) work: &'a Work,
    /// The CPU first.
    pub(crate) arms: &'a [Arm],
    /// With `--plot`.
    pub(crate) sweep: Option<&'a Sweep>,
    pub(crate) plot: Option<&'a Path>,
}

impl Findings<'_> {
    pub(crate) fn text(&self) -> String {
        let mut page = format!("{}\n{}\n", text::pairs(&self.facts()), self.times());
        if let Some(table) = self.inside() {
            page += &format!("\n{table}\n");
        }
        if let Some(sweep) = self.sweep {
            page += &format!("\n{}\n\n", sweep.text());
        }
        page + NOTES
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let (work, arms) = (self.work, self.arms);
        let each = |what: &dyn Fn(&Arm) -> Option<String>| {
            let words = arms.iter().filter_map(|arm| Some(format!("{} {}", arm.device(), what(arm)?)));
            words.collect::<Vec<String>>().join(", ")
        };
        let copy = |arm: &Arm| Some(format!("{:.1} GB/s", arm.copy()? / 1e9));
        let mut facts = vec![
            ("gradients", self.name.to_owned()),
            ("tensors", text::count(work.shapes.len() as u64)),
            ("elements", text::count(work.elements)),
            ("scope", format!("{}, {}", self.scope, text::counted(work.norms.len() as u64, "segment"))),
            ("cpu", text::counted(rayon::current_num_threads() as u64, "thread")),
        ];
        facts.extend(arms.iter().filter_map(|arm| Some(("gpu", adapter_name(arm.adapter.as_ref()?)))));
        facts.extend(arms.iter().filter_map(|arm| Some(("dispatches", arm.dispatches?.to_string()))));
        facts.push(("copy", each(&copy)));
        facts.push(("norm error", each(&|arm| Some(format!("{:.1e}", arm.error)))));
        facts.extend(self.plot.iter().map(|path| ("plot", path.display().to_string())));
        facts
    }

    /// Each arm and line.
    fn lines(&self) -> impl Iterator<Item = (&Arm, Line<'_>)> {
        let lines = |arm| lines(self.arms, arm, self.work.elements).into_iter().map(move |line| (arm, line));
        self.arms.iter().flat_map(lines)
    }

    /// The table of times.
    fn times(&self) -> String {
        let header = ["device", "regime", "MB", "median ms", "min .. max", "GB/s", "of copy", "speed-up"];
        let row = |(arm, line): (&Arm, Line<'_>)| {
            vec![
                arm.device().to_owned(),
                line.regime.name().to_owned(),
                digits(line.bytes as f64 / 1e6),
                ms(line.total.median),
                format!("{} .. {}", ms(line.total.min), ms(line.total.max)),
                digits(line.rate / 1e9),
                format!("{} %", digits(line.rate / line.copy * 100.0)),
                times(line.speed_up),
            ]
        };
        text::table(&header, 2..8, self.lines().map(row).collect())
    }

    /// The table of what the times on a GPU are made of.
    fn inside(&self) -> Option<String> {
        let header = ["device", "regime", "record+submit µs", "on the device: norm ms", "apply ms"];
        let on_device = |times: &[f64]| spread(times).map_or("-".into(), |s| ms(s.median));
        let row = |(arm, line): (&Arm, Line<'_>)| {
            Some(vec![
                arm.device().to_owned(),
                line.regime.name().to_owned(),
                format!("{:.1}", spread(&line.times.record)?.median * 1e6),
                on_device(&line.times.norm),
                on_device(&line.times.apply),
            ])
        };
        let rows: Vec<Vec<String>> = self.lines().filter_map(row).collect();
        (!rows.is_empty()).then(|| text::table(&header, 2..5, rows))
    }

    pub(crate) fn json(&self) -> Value {
        let work = self.work;
        let mut json = json!({
            "gradients": self.name,
            "tensors": work.shapes.len(),
            "elements": work.elements,
            "scope": self.scope,
            "segments": work.norms.len(),
            "norm_f64": if let [norm] = work.norms[..] { Some(norm) } else { None },
            "threads": rayon::current_num_threads(),
            "arms": arms(self.arms, work.elements),
        });
        if let Some(sweep) = self.sweep {
            json["sweep"] = sweep.json();
            json["crossovers"] = sweep.verdicts().iter().map(Verdict::json).collect();
        }
        json
    }
}

/// An arm's lines beside those of the first arm, which is the CPU.
fn lines<'a>(arms: &[Arm], arm: &'a Arm, elements: u64) -> Vec<Line<'a>> {
    arms.first().map(|cpu| arm.lines(cpu, elements)).unwrap_or_default()
}

/// The arms' results over so many elements as JSON.
pub(crate) fn arms(arms: &[Arm], elements: u64) -> Value {
    let json = |arm: &Arm| {
        json!({
            "device": arm.device(),
            "adapter": arm.adapter.as_ref().map(|info| info.name.as_str()),
            "backend": arm.adapter.as_ref().map(|info| info.backend.to_string()),
            "driver": arm.adapter.as_ref().map(|info| format!("{} {}", info.driver, info.driver_info)),
            "norm": arm.norm,
            "copy_gb_per_s": arm.copy().map(|rate| rate / 1e9),
            "dispatches": arm.dispatches,
            "regimes": lines(arms, arm, elements).iter().map(|line| regime(arm, line)).collect::<Vec<Value>>(),
        })
    };
    arms.iter().map(json).collect()
}

fn regime(arm: &Arm, line: &Line<'_>) -> Value {
    let median = |times: &[f64], unit: f64| spread(times).map(|s| s.median * unit);
    json!({
        "regime": line.regime.name(),
        "median_ms": line.total.median * 1e3,
        "min_ms": line.total.min * 1e3,
        "max_ms": line.total.max * 1e3,
        "runs": line.times.total.len(),
        "bytes": line.bytes,
        "gb_per_s": line.rate / 1e9,
        "share_of_copy": line.rate / line.copy,
        "speed_up": line.speed_up,
        "norm_relative_error": arm.error,
        "record_submit_us": median(&line.times.record, 1e6),
        "device_norm_ms": median(&line.times.norm, 1e3),
        "device_apply_ms": median(&line.times.apply, 1e3),
    })
}

/// Seconds as milliseconds.
pub(crate) fn ms(seconds: f64) -> String {
    match seconds * 1e3 {
        long if long >= 100.0 => format!("{long:.1}"),
        short if short < 1.0 => format!("{short:.4}"),
        other => format!("{other:.3}"),
    }
}

/// How many times faster.
pub(crate) fn times(speed_up: f64) -> String {
    format!("{}x", digits(speed_up))
}

/// Three digits, or the whole number: what is small is not nothing.
fn digits(value: f64) -> String {
    let power = if value > 0.0 { value.log10().floor().clamp(-9.0, 2.0) } else { 2.0 };
    format!("{value:.*}", (2.0 - power) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_numbers_are_not_nothing() {
        let all =
            [digits(0.0), digits(1234.5), digits(99.94), digits(1.0), digits(0.012_34), digits(f64::NAN)];
        assert_eq!(all, ["0", "1234", "99.9", "1.00", "0.0123", "NaN"]);
    }
}
