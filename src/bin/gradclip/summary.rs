//! A report for people and as JSON.

use std::path::Path;

use gradclip::session::adapter_name;
use gradclip::{Clip, NormType, Report, Rule, Scope, SegmentReport, TensorReport, Units};
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

    /// The whole set, where it has a norm and a coefficient.
    fn whole(&self) -> Option<&SegmentReport> {
        let global = self.clip.scope == Scope::Global && self.clip.rule != Rule::Value;
        self.report.segments.first().filter(|_| global)
    }

    /// What the gradients of a segment were multiplied by, where that is what was done to them.
    fn coefficient(&self, segment: &SegmentReport) -> Option<f32> {
        match self.clip.rule {
            Rule::Value => None,
            Rule::Sign if segment.clipped => None,
            _ => Some(segment.coefficient as f32),
        }
    }

    /// As [`Summary::coefficient`]; a tensor of several units has no single one.
    fn tensor_coefficient(&self, tensor: &TensorReport) -> Option<f32> {
        self.report.segments.get(tensor.segment).and_then(|segment| self.coefficient(segment))
    }

    /// Whether tensors have coefficients that may differ.
    fn per_tensor(&self) -> bool {
        self.clip.scope == Scope::Tensor && self.clip.rule != Rule::Value
    }

    pub(crate) fn json(&self) -> Value {
        let tensor = |t: &TensorReport| {
            json!({
                "name": &*t.name,
                "dtype": t.dtype.to_string(),
                "elements": t.elements,
                "norm": norm_value(t.norm),
                "coefficient": self.tensor_coefficient(t).map(coefficient_value),
            })
        };
        let whole = self.whole();
        json!({
            "device": if self.adapter.is_some() { "gpu" } else { "cpu" },
            "adapter": self.adapter.map(|info| info.name.as_str()),
            "backend": self.adapter.map(|info| info.backend.to_string()),
            "norm": whole.map(|segment| norm_value(segment.norm)),
            "coefficient": whole.and_then(|segment| self.coefficient(segment)).map(coefficient_value),
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
        let measured_only = self.clip.threshold == f64::INFINITY;
        let mut facts = vec![
            ("adapter", self.adapter.map_or("none, CPU path".into(), adapter_name)),
            ("elements", text::count(elements)),
            ("tensors", text::count(self.report.tensors.len() as u64)),
        ];
        facts.extend(self.rule().map(|rule| ("rule", rule.to_owned())));
        facts.push(("norm", self.norm()));
        if !measured_only {
            facts.push(("threshold", self.threshold()));
        }
        let coefficient = self.whole().and_then(|segment| self.coefficient(segment));
        if let (Some(coefficient), false) = (coefficient, measured_only) {
            facts.push(("coefficient", text::short(coefficient.into())));
        }
        facts.push(("clipped", self.outcome(measured_only)));
        facts.push(("non-finite", self.non_finite()));
        if let Some(path) = self.written {
            facts.push(("written", path.display().to_string()));
        }
        facts
    }

    /// The rule, where it is not the usual one.
    fn rule(&self) -> Option<&'static str> {
        match (self.clip.rule, self.clip.scope) {
            (Rule::Value, _) => Some("clamp of every element"),
            (Rule::Rms, _) => Some("root mean square of each tensor"),
            (Rule::Agc { .. }, Scope::Unit(Units::OutputLast)) => Some("adaptive, units along the last axis"),
            (Rule::Agc { .. }, _) => Some("adaptive, units along the first axis"),
            (Rule::Sign, _) => Some("sign of every element where the norm exceeds the threshold"),
            _ => None,
        }
    }

    fn norm(&self) -> String {
        // Value clipping is reported with the usual norms, not with the one it looks at.
        let norm = if self.clip.rule == Rule::Value { NormType::Two } else { self.clip.norm };
        let kind = options::norm_name(norm);
        match self.whole() {
            Some(segment) => format!("{} ({kind})", text::short(segment.norm)),
            None => format!("one a tensor ({kind})"),
        }
    }

    fn threshold(&self) -> String {
        let threshold = text::short(self.clip.threshold.into());
        match self.clip.rule {
            Rule::Agc { eps } => {
                let least = text::short(eps.into());
                format!("{threshold} of the parameters' norm, or of {least} where that is larger")
            }
            _ => threshold,
        }
    }

    fn outcome(&self, measured_only: bool) -> String {
        let clipped = self.report.clipped_segments;
        if measured_only {
            return "no, measured only".into();
        }
        match (self.clip.scope, self.clip.rule) {
            (Scope::Tensor, _) => {
                let all = text::counted(self.report.tensors.len() as u64, "tensor");
                format!("{} of {all}", text::count(clipped))
            }
            (Scope::Unit(_), _) => text::counted(clipped, "unit"),
            (_, Rule::Sign) if clipped > 0 => "yes, to the signs".into(),
            _ if clipped > 0 => "yes".into(),
            _ if self.report.non_finite() > 0 => "no, because of non-finite elements".into(),
            (_, Rule::Value) => "no, every element is within the threshold".into(),
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
        let per_tensor = self.per_tensor();
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
                row.push(self.tensor_coefficient(t).map_or(String::new(), |c| text::short(c.into())));
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
pub(crate) fn norm_value(norm: f64) -> Value {
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
