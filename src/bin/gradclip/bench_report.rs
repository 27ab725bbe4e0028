//! What `bench` measured, for people and as JSON.

use gradclip::session::adapter_name;
use serde_json::{Value, json};

use crate::bench::{Arm, Regime, Times};
use crate::bench_work::Work;
use crate::text;

const NOTES: &str = "\
Bytes are counted as 4 an element (norm) and 12 where it clips (norm, read and write), whatever was\n\
really moved. Copy is an in-place multiply on all cores, or buffer to buffer on the GPU, over 64 MiB\n\
or more, in the same run. Gradients are restored outside the timing. Clipped: every segment is, else\n\
none. The error is that of the norms against f64, the largest.";

/// Median, least and most.
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

fn spread(values: &[f64]) -> Option<Spread> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (&min, &max) = (sorted.first()?, sorted.last()?);
    let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
    Some(Spread { median: (low + high) / 2.0, min, max })
}

impl Regime {
    fn name(self) -> &'static str {
        match self {
            Regime::Clipped => "clipped",
            Regime::NotClipped => "not clipped",
        }
    }

    /// Bytes an element that have to be moved at least.
    fn bytes(self) -> u64 {
        match self {
            Regime::Clipped => 12,
            Regime::NotClipped => 4,
        }
    }
}

/// One line of results.
struct Line {
    regime: Regime,
    total: Spread,
    runs: usize,
    bytes: u64,
    /// Bytes a second.
    rate: f64,
    copy: f64,
    error: f64,
}

impl Arm {
    fn device(&self) -> &'static str {
        if self.adapter.is_some() { "gpu" } else { "cpu" }
    }

    fn lines(&self, work: &Work) -> Vec<(Line, &Times)> {
        let copy = spread(&self.copies).map_or(f64::NAN, |s| self.copied as f64 / s.median);
        let line = |(regime, times): &'_ (Regime, Times)| {
            let total = spread(&times.total)?;
            let bytes = regime.bytes() * work.elements;
            let rate = bytes as f64 / total.median;
            let (regime, runs) = (*regime, times.total.len());
            Some(Line { regime, total, runs, bytes, rate, copy, error: self.error })
        };
        self.regimes.iter().filter_map(|pair| Some((line(pair)?, &pair.1))).collect()
    }
}

pub(crate) fn page(name: &str, scope: &str, work: &Work, arms: &[Arm]) -> String {
    let ms = |seconds: f64| match seconds * 1e3 {
        long if long >= 100.0 => format!("{long:.1}"),
        short => format!("{short:.3}"),
    };
    let (mut rows, mut inside, mut copies) = (Vec::new(), Vec::new(), Vec::new());
    for arm in arms {
        for (line, times) in arm.lines(work) {
            rows.push(vec![
                arm.device().to_owned(),
                line.regime.name().to_owned(),
                ms(line.total.median),
                format!("{} .. {}", ms(line.total.min), ms(line.total.max)),
                format!("{:.2}", line.rate / 1e9),
                format!("{:.0} %", line.rate / line.copy * 100.0),
                format!("{:.1e}", line.error),
                arm.dispatches.map_or("-".into(), |n| n.to_string()),
            ]);
            if line.regime == Regime::Clipped {
                copies.push(format!("{} {:.1} GB/s", arm.device(), line.copy / 1e9));
            }
            let Some(record) = spread(&times.record) else { continue };
            let on_device = |times: &[f64]| spread(times).map_or("-".into(), |s| ms(s.median));
            inside.push(vec![
                arm.device().to_owned(),
                line.regime.name().to_owned(),
                format!("{:.1}", record.median * 1e6),
                on_device(&times.norm),
                on_device(&times.apply),
            ]);
        }
    }
    let mut facts = vec![
        ("gradients", name.to_owned()),
        ("tensors", text::count(work.shapes.len() as u64)),
        ("elements", text::count(work.elements)),
        ("scope", format!("{scope}, {}", text::counted(work.norms.len() as u64, "segment"))),
        ("cpu", text::counted(rayon::current_num_threads() as u64, "thread")),
    ];
    facts.extend(arms.iter().filter_map(|arm| Some(("gpu", adapter_name(arm.adapter.as_ref()?)))));
    facts.push(("copy", copies.join(", ")));
    let mut page = text::pairs(&facts);
    let header =
        ["device", "regime", "median ms", "min .. max", "GB/s", "of copy", "norm error", "dispatches"];
    page += &format!("\n{}\n", text::table(&header, 2..8, rows));
    if !inside.is_empty() {
        let header = ["device", "regime", "record+submit µs", "on the device: norm ms", "apply ms"];
        page += &format!("\n{}\n", text::table(&header, 2..5, inside));
    }
    page + NOTES
}

pub(crate) fn json(name: &str, scope: &str, work: &Work, arms: &[Arm]) -> Value {
    let arm = |arm: &Arm| {
        let lines = arm.lines(work);
        json!({
            "device": arm.device(),
            "adapter": arm.adapter.as_ref().map(|info| info.name.as_str()),
            "backend": arm.adapter.as_ref().map(|info| info.backend.to_string()),
            "driver": arm.adapter.as_ref().map(|info| format!("{} {}", info.driver, info.driver_info)),
            "norm": arm.norm,
            "copy_gb_per_s": lines.first().map(|(line, _)| line.copy / 1e9),
            "dispatches": arm.dispatches,
            "regimes": lines.iter().map(|(line, times)| regime(line, times)).collect::<Vec<Value>>(),
        })
    };
    json!({
        "gradients": name,
        "tensors": work.shapes.len(),
        "elements": work.elements,
        "scope": scope,
        "segments": work.norms.len(),
        "norm_f64": if let [norm] = work.norms[..] { Some(norm) } else { None },
        "threads": rayon::current_num_threads(),
        "arms": arms.iter().map(arm).collect::<Vec<Value>>(),
    })
}

fn regime(line: &Line, times: &Times) -> Value {
    let median = |times: &[f64], unit: f64| spread(times).map(|s| s.median * unit);
    json!({
        "regime": line.regime.name(),
        "median_ms": line.total.median * 1e3,
        "min_ms": line.total.min * 1e3,
        "max_ms": line.total.max * 1e3,
        "runs": line.runs,
        "bytes": line.bytes,
        "gb_per_s": line.rate / 1e9,
        "share_of_copy": line.rate / line.copy,
        "norm_relative_error": line.error,
        "record_submit_us": median(&times.record, 1e6),
        "device_norm_ms": median(&times.norm, 1e3),
        "device_apply_ms": median(&times.apply, 1e3),
    })
}
