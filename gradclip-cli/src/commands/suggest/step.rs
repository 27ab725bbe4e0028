//! The steps of `gradclip suggest`: gradients that are measured, and norms that were logged.

use std::path::Path;

use gradclip::adapter_name;
use gradclip::{Clip, NormType, Session, Target, wgpu};
use serde_json::{Value, json};

use crate::args::device;
use crate::commands::suggest::series::Logged;
use crate::failure::Failure;
use crate::input::{Set, shown};
use crate::job::Job;
use crate::text;

/// One step's norm.
pub(crate) struct Step<'a> {
    input: &'a Path,
    /// The line of a log.
    line: Option<u64>,
    /// `None` where gradients are not finite.
    pub(crate) norm: Option<f64>,
    non_finite: u64,
    first_non_finite: Option<String>,
}

impl<'a> Step<'a> {
    pub(crate) fn logged(input: &'a Path, logged: Logged) -> Step<'a> {
        let norm = Some(logged.norm).filter(|norm| norm.is_finite());
        let non_finite = u64::from(norm.is_none());
        Step { input, line: Some(logged.line), norm, non_finite, first_non_finite: None }
    }

    fn file(&self) -> String {
        self.input.display().to_string()
    }

    /// Why there is no norm.
    pub(crate) fn left_out(&self) -> String {
        if let Some(line) = self.line {
            return format!("line {line} of `{}` is not finite", shown(self.input));
        }
        let elements = text::counted(self.non_finite, "non-finite element");
        let first = text::escaped(self.first_non_finite.as_deref().unwrap_or_default());
        format!("`{}` has {elements}, the first in `{}`", shown(self.input), text::shortened(&first, 40))
    }

    /// File, line where it is one of a log, norm.
    pub(crate) fn norm_json(&self) -> Value {
        match self.line {
            None => json!({ "file": self.file(), "norm": self.norm }),
            Some(line) => json!({ "file": self.file(), "line": line, "norm": self.norm }),
        }
    }

    /// File, line where it is one of a log, and what was not finite.
    pub(crate) fn left_out_json(&self) -> Value {
        let (file, tensor, count) = (self.file(), &self.first_non_finite, self.non_finite);
        match self.line {
            None => json!({ "file": file, "tensor": tensor, "non_finite": count }),
            Some(line) => json!({ "file": file, "line": line, "tensor": tensor, "non_finite": count }),
        }
    }
}

/// Measures gradients, on a device that is opened when there are some.
pub(crate) struct Measure<'t> {
    clip: Clip,
    target: &'t Target,
    session: Option<Session>,
    /// For doubles where the other one is an adapter.
    double: Option<Session>,
}

impl<'t> Measure<'t> {
    pub(crate) fn new(norm: NormType, target: &'t Target) -> Measure<'t> {
        Measure { clip: Clip::measure().norm_type(norm), target, session: None, double: None }
    }

    /// The norm of a step.
    pub(crate) fn step<'a>(&mut self, input: &'a Path, set: &Set) -> Result<Step<'a>, Failure> {
        let slot = if set.double().is_some() { &mut self.double } else { &mut self.session };
        let session = match slot {
            Some(session) => session,
            None => slot.insert(device::open_for(self.target, set, None)?),
        };
        let report = Job::measure(set, &self.clip).run(session)?.report;
        device::used(session);
        let first = report.tensors.iter().position(|tensor| tensor.non_finite > 0);
        Ok(Step {
            input,
            line: None,
            norm: report.norm().filter(|norm| norm.is_finite()),
            non_finite: report.non_finite(),
            first_non_finite: first.map(|i| set.gradients[i].name.clone()),
        })
    }

    /// The adapter that measured, if one did.
    pub(crate) fn adapter(&self) -> Option<&wgpu::AdapterInfo> {
        self.session.as_ref().and_then(Session::adapter)
    }

    /// What measured, in words.
    pub(crate) fn words(&self) -> String {
        match (&self.session, &self.double) {
            (None, None) => "none, the norms were given".into(),
            _ => self.adapter().map_or("none, CPU path".into(), adapter_name),
        }
    }
}
