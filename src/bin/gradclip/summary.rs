//! A report for people and as JSON.

use std::path::Path;

use gradclip::session::adapter_name;
use gradclip::{Clip, Report, Scope, TensorReport};
use serde_json::{Value, json};

use crate::{options, text};

/// Tensors that are shown.
const SHOWN: usize = 12;

#[derive(Debug)]
pub(crate) struct Summary<'a> {
    report: &'a Report,
    clip: &'a Clip,
    adapter: Option<&'a wgpu::AdapterInfo>,
    pub(crate) written: Option<&'a Path>,
}

impl<'a> Summary<'a> {
    pub(crate) fn new(report: &'a Report, clip: &'a Clip, adapter: Option<&'a wgpu::AdapterInfo>) -> Self {
        Summary { report, clip, adapter, written: None }
    }

    /// Norm and coefficient of the whole set, where it has them.
    fn whole(&self) -> Option<(f64, f32)> {
        let (norm, coefficient) = (self.report.norm()?, self.report.coefficient()?);
        (self.clip.scope == Scope::Global).then_some((norm, coefficient))
    }

    fn coefficient(&self, tensor: &TensorReport) -> f32 {
        self.report.segments[tensor.segment].coefficient
    }

    pub(crate) fn json(&self) -> Value {
        let tensor = |t: &TensorReport| {
            json!({
                "name": &*t.name,
                "dtype": t.dtype.to_string(),
                "elements": t.elements,
                "norm": norm_value(t.norm),
                "coefficient": coefficient_value(self.coefficient(t)),
            })
        };
        json!({
            "device": if self.adapter.is_some() { "gpu" } else { "cpu" },
            "adapter": self.adapter.map(|info| info.name.as_str()),
            "backend": self.adapter.map(|info| info.backend.to_string()),
            "norm": self.whole().map(|(norm, _)| norm_value(norm)),
            "coefficient": self.whole().map(|(_, coefficient)| coefficient_value(coefficient)),
            "clipped": self.report.clipped(),
            "non_finite": self.report.non_finite(),
            "first_non_finite": self.report.first_non_finite(),
            "tensors": self.report.tensors.iter().map(tensor).collect::<Vec<Value>>(),
        })
    }

    pub(crate) fn text(&self) -> String {
        let mut blocks = text::pairs(&self.facts());
        if !self.report.tensors.is_empty() {
            blocks += "\n";
            blocks += &self.norms();
        }
        blocks
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let elements: u64 = self.report.tensors.iter().map(|t| t.elements).sum();
        let measured_only = self.clip.threshold == f32::INFINITY;
        let kind = options::norm_name(self.clip.norm);
        let mut facts = vec![
            ("adapter", self.adapter.map_or("none, CPU path".into(), adapter_name)),
            ("elements", text::count(elements)),
            ("tensors", text::count(self.report.tensors.len() as u64)),
            (
                "norm",
                match self.whole() {
                    Some((norm, _)) => format!("{} ({kind})", text::short(norm)),
                    None => format!("one a tensor ({kind})"),
                },
            ),
        ];
        if !measured_only {
            facts.push(("threshold", text::short(self.clip.threshold.into())));
        }
        if let (Some((_, coefficient)), false) = (self.whole(), measured_only) {
            facts.push(("coefficient", text::short(coefficient.into())));
        }
        facts.push(("clipped", self.outcome(measured_only)));
        facts.push(("non-finite", self.non_finite()));
        if let Some(path) = self.written {
            facts.push(("written", path.display().to_string()));
        }
        facts
    }

    fn outcome(&self, measured_only: bool) -> String {
        let segments = &self.report.segments;
        let clipped = segments.iter().filter(|s| s.clipped).count();
        if measured_only {
            return "no, measured only".into();
        }
        match self.clip.scope {
            Scope::Tensor => format!("{clipped} of {}", text::counted(segments.len() as u64, "tensor")),
            _ if clipped > 0 => "yes".into(),
            _ if self.report.non_finite() > 0 => "no, because of non-finite elements".into(),
            _ => "no, the norm is within the threshold".into(),
        }
    }

    fn non_finite(&self) -> String {
        match self.report.first_non_finite() {
            None => "0".into(),
            Some(first) => {
                let elements = text::counted(self.report.non_finite(), "element");
                format!("{elements}, the first in `{}`", text::name(first, 40))
            }
        }
    }

    /// The tensors with the largest norms, with bars.
    fn norms(&self) -> String {
        let mut tensors: Vec<&TensorReport> = self.report.tensors.iter().collect();
        let key = |t: &TensorReport| if t.norm.is_nan() { f64::INFINITY } else { t.norm };
        tensors.sort_by(|a, b| key(b).total_cmp(&key(a)));
        let largest = tensors.iter().map(|t| t.norm).filter(|n| n.is_finite()).fold(0.0, f64::max);
        let per_tensor = self.clip.scope == Scope::Tensor;
        // Columns of the longest name and bar.
        let (name, bar) = if per_tensor { (28, 10) } else { (34, 20) };
        let row = |t: &&TensorReport| {
            let mut row = vec![
                text::name(&t.name, name),
                t.dtype.to_string(),
                text::count(t.elements),
                text::short(t.norm),
            ];
            if per_tensor {
                row.push(text::short(self.coefficient(t).into()));
            }
            row.push(match t.norm.is_finite() {
                true => text::bar(t.norm / largest, bar),
                false => format!("{} non-finite", text::count(t.non_finite.into())),
            });
            row
        };
        let mut header = vec!["largest norms", "type", "elements", "norm"];
        if per_tensor {
            header.push("coefficient");
        }
        let numbers = 2..header.len();
        header.push("");
        let mut shown = text::table(&header, numbers, tensors.iter().take(SHOWN).map(row).collect());
        if tensors.len() > SHOWN {
            let rest = text::counted((tensors.len() - SHOWN) as u64, "more tensor");
            shown += &format!("\n… and {rest} with norms up to {}", text::short(tensors[SHOWN].norm));
        }
        shown
    }
}

/// A norm; infinity and NaN are no JSON numbers.
fn norm_value(norm: f64) -> Value {
    match norm {
        n if n.is_nan() => "nan".into(),
        n if n.is_infinite() => "inf".into(),
        n => n.into(),
    }
}

/// A coefficient by its shortest digits as f32; null for NaN.
fn coefficient_value(coefficient: f32) -> Value {
    // Going through f64 directly would print 0.1 as 0.10000000149011612.
    coefficient.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}
