//! A report for people and as JSON.

use gradclip::wgpu;
use gradclip::{Clip, DType, Report, Rule, Scope, SegmentReport, TensorReport, Units};
use serde_json::{Value, json};

use crate::args::options;
use crate::args::precision::{Precision, Scalar};
use crate::failure::Failure;
use crate::input::{Gradient, Set};
use crate::job::told;
use crate::text;

/// Tensors that are shown.
const SHOWN: usize = 12;

#[derive(Debug)]
pub(crate) struct Summary<'a> {
    pub(crate) report: &'a Report,
    pub(crate) clip: &'a Clip,
    pub(crate) set: &'a Set,
    pub(crate) precision: Precision,
    pub(crate) adapter: Option<&'a wgpu::AdapterInfo>,
    /// What was written, in words.
    pub(crate) written: Option<String>,
    /// The norm of all gradients after the clip, where they were clipped.
    pub(crate) norm_after: Option<f64>,
}

impl Summary<'_> {
    /// Prints the table, or the JSON, to standard output, or to standard error where that is taken.
    pub(crate) fn print(&self, json: bool, to_error: bool) -> Result<(), Failure> {
        let text = self.shown(json);
        if to_error { text::print_error(&text) } else { text::print(&text) }
    }

    /// The table, or the JSON.
    pub(crate) fn shown(&self, json: bool) -> String {
        if json { self.json().to_string() } else { self.text() }
    }

    /// The whole set, where it has a norm and a coefficient.
    fn whole(&self) -> Option<&SegmentReport> {
        let global = self.clip.scope == Scope::Global && self.clip.rule != Rule::Value;
        self.report.segments.iter().find(|segment| global && !segment.excluded)
    }

    /// What the gradients of a segment were multiplied by, where that is what was done to them.
    fn coefficient(&self, segment: &SegmentReport) -> Option<Scalar> {
        match self.clip.rule {
            Rule::Value => None,
            Rule::Sign if segment.clipped => None,
            _ => Some(segment.coefficient),
        }
    }

    /// As [`Summary::coefficient`]; a tensor of several units has no single one.
    fn tensor_coefficient(&self, tensor: &TensorReport) -> Option<Scalar> {
        self.report.segments.get(tensor.segment).and_then(|segment| self.coefficient(segment))
    }

    /// Whether tensors have coefficients that may differ.
    fn per_tensor(&self) -> bool {
        matches!(self.clip.scope, Scope::Tensor | Scope::Group) && self.clip.rule != Rule::Value
    }

    fn json(&self) -> Value {
        let shortest = |coefficient| self.precision.shortest(coefficient);
        let tensor = |(t, gradient): (&TensorReport, &Gradient)| {
            json!({
                "name": gradient.name,
                "dtype": DType::from(gradient.float).to_string(),
                "elements": t.elements,
                "norm": norm_value(t.norm),
                "coefficient": self.tensor_coefficient(t).map(shortest),
            })
        };
        let tensors = self.report.tensors.iter().zip(&self.set.gradients);
        let first = tensors.clone().find(|(t, _)| t.non_finite > 0).map(|(_, gradient)| &gradient.name);
        let whole = self.whole();
        json!({
            "device": if self.adapter.is_some() { "gpu" } else { "cpu" },
            "adapter": self.adapter.map(|info| info.name.as_str()),
            "backend": self.adapter.map(|info| info.backend.to_string()),
            "norm": whole.map(|segment| norm_value(segment.norm)),
            "coefficient": whole.and_then(|segment| self.coefficient(segment)).map(shortest),
            "clipped": self.report.clipped(),
            "norm_after": self.norm_after.filter(|norm| norm.is_finite()),
            "non_finite": self.report.non_finite(),
            "first_non_finite": first,
            "tensors": tensors.map(tensor).collect::<Vec<Value>>(),
        })
    }

    fn text(&self) -> String {
        let mut blocks = text::pairs(&self.facts());
        if !self.report.tensors.is_empty() {
            blocks += "\n";
            blocks += &self.norms();
        }
        blocks
    }

    fn adapter_name(&self) -> String {
        #[cfg(not(target_arch = "wasm32"))]
        if let Some(info) = self.adapter {
            return gradclip::adapter_name(info);
        }
        "none, CPU path".into()
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let elements: u64 = self.report.tensors.iter().map(|t| t.elements).sum();
        let measured_only = self.measures_only();
        let mut facts = vec![
            ("adapter", self.adapter_name()),
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
            facts.push(("coefficient", text::short(coefficient)));
        }
        facts.push(("clipped", self.outcome(measured_only)));
        if let Some(norm) = self.norm_after {
            let kind = options::norm_name(told(self.clip));
            facts.push(("norm after", format!("{} ({kind}, of the whole set)", text::short(norm))));
        }
        facts.push(("non-finite", self.non_finite()));
        facts.extend(self.written.clone().map(|written| ("written", written)));
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
        let kind = options::norm_name(told(self.clip));
        match self.whole() {
            Some(segment) => format!("{} ({kind})", text::short(segment.norm)),
            None if self.clip.scope == Scope::Group => format!("one a group ({kind})"),
            None => format!("one a tensor ({kind})"),
        }
    }

    fn threshold(&self) -> String {
        let threshold = text::short(self.clip.threshold);
        match self.clip.rule {
            Rule::Agc { eps } => {
                let least = text::short(eps);
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
                let all = text::counted(self.limited(), "tensor");
                format!("{} of {all}", text::count(clipped))
            }
            (Scope::Group, _) => {
                let all = text::counted(self.limited(), "group");
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

    /// Whether nothing is limited, by whatever option.
    fn measures_only(&self) -> bool {
        let none = |threshold: f64| threshold == f64::INFINITY;
        let report = self.report;
        none(self.clip.threshold)
            && self.clip.total.is_none_or(none)
            && report.segments.iter().all(|segment| segment.excluded || none(segment.threshold))
            && report.clipped_segments == 0
    }

    /// Segments that are not left out.
    fn limited(&self) -> u64 {
        self.report.segments.iter().filter(|segment| !segment.excluded).count() as u64
    }

    fn non_finite(&self) -> String {
        match self.report.first_non_finite() {
            None => "0".into(),
            Some(first) => {
                let elements = text::counted(self.report.non_finite(), "element");
                format!("{elements}, the first in `{}`", text::shortened(&text::escaped(first), 40))
            }
        }
    }

    /// The tensors with the largest norms, with bars.
    fn norms(&self) -> String {
        let mut tensors: Vec<(&TensorReport, &Gradient)> =
            self.report.tensors.iter().zip(&self.set.gradients).collect();
        let key = |t: &TensorReport| if t.norm.is_nan() { f64::INFINITY } else { t.norm };
        tensors.sort_by(|(a, _), (b, _)| key(b).total_cmp(&key(a)));
        let largest = tensors.iter().map(|(t, _)| t.norm).filter(|n| n.is_finite()).fold(0.0, f64::max);
        let per_tensor = self.per_tensor();
        // Columns of the longest name and bar.
        let (name, bar) = if per_tensor { (28, 10) } else { (34, 20) };
        let row = |(t, gradient): &(&TensorReport, &Gradient)| {
            let mut row = vec![
                text::shortened(&gradient.shown, name),
                DType::from(gradient.float).to_string(),
                text::count(t.elements),
                text::short(t.norm),
            ];
            if per_tensor {
                row.push(self.tensor_coefficient(t).map_or(String::new(), text::short));
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
            shown += &format!("\n… and {rest} with norms up to {}", text::short(tensors[SHOWN].0.norm));
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
