//! Gradients with the tensors updated with them, chunk by chunk: the twin of `shaders/shared/fused.wgsl`.

use std::sync::Arc;

use crate::error::ClipError;
use crate::layout::{CHUNK, Outcome};
use crate::segments::{Owner, Segments, UnitView};
use crate::tensor::{DType, Group, Precision, TensorInfo};

use super::block::Values;
use super::change::outcomes_of;
use super::parameter::ParameterMut;
use super::threads;
use super::update::{Action, Target};

/// A gradient, and the parameter or accumulator that it goes into.
#[derive(Debug)]
pub(super) struct Operands<'a> {
    name: Arc<str>,
    pub(super) gradient: Values<'a>,
    pub(super) target: ParameterMut<'a>,
    pub(super) shape: Option<Box<[u64]>>,
    pub(super) group: Option<Group>,
    /// The rows of the target, a table, that the gradient has.
    pub(super) rows: Option<&'a [u32]>,
}

impl<'a> Operands<'a> {
    pub(super) fn new(name: Arc<str>, gradient: Values<'a>, target: ParameterMut<'a>) -> Operands<'a> {
        Operands { name, gradient, target, shape: None, group: None, rows: None }
    }

    pub(super) fn info(&self) -> TensorInfo {
        TensorInfo {
            name: self.name.clone(),
            dtype: self.gradient.dtype(),
            elements: self.gradient.len() as u64,
            shape: self.shape.clone(),
            group: self.group.clone(),
            has_parameter: self.rows.is_none(),
        }
    }

    /// The tensor is not what is required of it.
    pub(super) fn wrong(&self, required: String, given: String) -> ClipError {
        ClipError::Tensor { tensor: self.name.to_string(), required, given }
    }

    /// That both have the same length, and the gradient a type that an `f32` holds.
    pub(super) fn check(&self, what: &str) -> Result<(), ClipError> {
        if self.gradient.dtype() == DType::F64 {
            let required =
                format!("a gradient of f32, f16 or bf16 for {what} of f32; `cpu::clip` clips f64 in place");
            return Err(self.wrong(required, DType::F64.to_string()));
        }
        if let Some(rows) = self.rows {
            return self.check_rows(rows);
        }
        let required = self.gradient.len();
        let Some(given) = self.target.lens().into_iter().find(|&given| given != required) else {
            return Ok(());
        };
        let required = format!("{what} of {required} elements, as its gradient has");
        Err(self.wrong(required, given.to_string()))
    }
}

impl Operands<'_> {
    /// That a gradient has these rows of a table, each once and in order.
    fn check_rows(&self, rows: &[u32]) -> Result<(), ClipError> {
        if self.target.precision() != Precision::Single {
            let required = "a table of f32, for a step on rows of it".to_owned();
            return Err(self.wrong(required, format!("one kept as {:?}", self.target.precision())));
        }
        let (all, elements) = (self.gradient.len(), self.target.len());
        let width = all / rows.len().max(1);
        if width * rows.len() != all {
            let required = format!("a gradient of as many elements for each of {} rows", rows.len());
            return Err(self.wrong(required, all.to_string()));
        }
        if width > 0 && !elements.is_multiple_of(width) {
            return Err(self.wrong(format!("a table of rows of {width} elements"), elements.to_string()));
        }
        if let Some(pair) = rows.windows(2).find(|pair| pair[0] >= pair[1]) {
            return Err(
                self.wrong("ascending rows, each once".into(), format!("{} before {}", pair[0], pair[1]))
            );
        }
        match rows.last() {
            Some(&row) if width > 0 && row as usize >= elements / width => {
                Err(self.wrong(format!("rows below {}", elements / width), row.to_string()))
            }
            _ => Ok(()),
        }
    }
}

/// A gradient, what it goes into with the moments of that, and how; the rows of that, where its own are some of a table's.
pub(super) type Member<'a> = (Values<'a>, ParameterMut<'a>, &'a mut [Vec<f32>], Action, Option<&'a [u32]>);

/// A chunk and what it does.
#[derive(Debug)]
pub(super) struct Work<'a> {
    gradient: Values<'a>,
    target: Target<'a>,
    action: Action,
    outcomes: &'a [Outcome],
    /// Where its tensor is cut into units.
    units: Option<UnitView>,
}

/// Lets every gradient do what it does, read through the outcomes of its segments. `work` is room for what has to be done.
pub(super) fn run<'a>(
    members: impl Iterator<Item = Member<'a>>,
    parts: &Segments,
    outcomes: &'a [Outcome],
    work: &mut Vec<Work<'a>>,
) {
    let mut elements = 0;
    for ((gradient, target, moments, action, rows), &owner) in members.zip(&parts.owners) {
        elements += gradient.len() as u64;
        let own = outcomes_of(owner, outcomes);
        let units = if let Owner::Units { view, .. } = owner { Some(view) } else { None };
        let (all, len) = (gradient.len(), CHUNK as usize);
        let mut moments = moments.iter_mut().map(|m| &mut m[..]);
        let moments = std::array::from_fn(|_| moments.next().unwrap_or_default());
        let mut target = Target { parameter: target, moments, first: 0 };
        if let Some(rows) = rows {
            let width = all / rows.len().max(1);
            work.extend(rows.iter().enumerate().map(|(k, &row)| {
                let target = target.row(row as usize, width, k);
                Work { gradient: gradient.range(k * width, width), target, action, outcomes: own, units }
            }));
            continue;
        }
        for at in (0..all).step_by(len) {
            let gradient = gradient.range(at, len.min(all - at));
            work.push(Work { gradient, target: target.split(len), action, outcomes: own, units });
        }
    }
    threads::share(work, elements, &|_, own| own.iter_mut().for_each(Work::run));
    work.clear();
}

impl Work<'_> {
    /// Once: nothing is left of its target.
    fn run(&mut self) {
        let Work { gradient, target, action, outcomes, units } = self;
        let mut target = std::mem::take(target);
        let Some(view) = *units else { return gradient.act(&outcomes[0], action, target) };
        for (run, unit) in view.runs(target.first, gradient.len()) {
            let len = run.len();
            gradient.range(run.start, len).act(&outcomes[unit], action, target.split(len));
        }
    }
}
