//! Gradients with the tensors updated with them, chunk by chunk: the twin of `shaders/shared/fused.wgsl`.

use std::sync::Arc;

use crate::error::ClipError;
use crate::layout::{CHUNK, Outcome};
use crate::segments::{Owner, Segments, UnitView};
use crate::tensor::{DType, Group, TensorInfo};

use super::block::Values;
use super::change::outcomes_of;
use super::threads;
use super::update::{Action, Target};

/// A gradient, and the parameter or accumulator that it goes into.
#[derive(Debug)]
pub(super) struct Operands<'a> {
    name: Arc<str>,
    pub(super) gradient: Values<'a>,
    pub(super) target: &'a mut [f32],
    pub(super) shape: Option<Box<[u64]>>,
    pub(super) group: Option<Group>,
}

impl<'a> Operands<'a> {
    pub(super) fn new(name: Arc<str>, gradient: Values<'a>, target: &'a mut [f32]) -> Operands<'a> {
        Operands { name, gradient, target, shape: None, group: None }
    }

    pub(super) fn info(&self) -> TensorInfo {
        TensorInfo {
            name: self.name.clone(),
            dtype: self.gradient.dtype(),
            elements: self.gradient.len() as u64,
            shape: self.shape.clone(),
            group: self.group.clone(),
            has_parameter: true,
        }
    }

    /// That both have the same length, and the gradient a type that an `f32` holds.
    pub(super) fn check(&self, what: &str) -> Result<(), ClipError> {
        if self.gradient.dtype() == DType::F64 {
            return Err(ClipError::Tensor {
                tensor: self.name.to_string(),
                required: format!(
                    "a gradient of f32, f16 or bf16 for {what} of f32; `cpu::clip` clips f64 in place"
                ),
                given: DType::F64.to_string(),
            });
        }
        let (required, given) = (self.gradient.len(), self.target.len());
        if required == given {
            return Ok(());
        }
        let required = format!("{what} of {required} elements, as its gradient has");
        Err(ClipError::Tensor { tensor: self.name.to_string(), required, given: given.to_string() })
    }
}

/// A gradient, what it goes into with the moments of that, and how.
pub(super) type Member<'a> = (Values<'a>, &'a mut [f32], &'a mut [Vec<f32>], Action);

/// A chunk and what it does.
#[derive(Debug)]
pub(super) struct Work<'a> {
    gradient: Values<'a>,
    target: Target<'a>,
    action: Action,
    outcomes: &'a [Outcome],
    /// The chunk's first element in its tensor, where that is cut into units.
    units: Option<(u64, UnitView)>,
}

/// Lets every gradient do what it does, read through the outcomes of its segments. `work` is room for what has to be done.
pub(super) fn run<'a>(
    members: impl Iterator<Item = Member<'a>>,
    parts: &Segments,
    outcomes: &'a [Outcome],
    work: &mut Vec<Work<'a>>,
) {
    let mut elements = 0;
    for ((gradient, target, moments, action), &owner) in members.zip(&parts.owners) {
        elements += target.len() as u64;
        let own = outcomes_of(owner, outcomes);
        let view = if let Owner::Units { view, .. } = owner { Some(view) } else { None };
        let len = CHUNK as usize;
        let mut moments = moments.iter_mut().map(|m| m.chunks_mut(len));
        let mut moments = [moments.next(), moments.next(), moments.next()];
        let next = |chunks: &mut Option<std::slice::ChunksMut<'a, f32>>| {
            chunks.as_mut().and_then(Iterator::next).unwrap_or_default()
        };
        for (at, parameter) in (0..).step_by(len).zip(target.chunks_mut(len)) {
            let gradient = gradient.range(at, parameter.len());
            let target = Target { parameter, moments: moments.each_mut().map(next) };
            let units = view.map(|view| (at as u64, view));
            work.push(Work { gradient, target, action, outcomes: own, units });
        }
    }
    threads::share(work, elements, &|_, own| own.iter_mut().for_each(Work::run));
    work.clear();
}

impl Work<'_> {
    /// Once: nothing is left of its target.
    fn run(&mut self) {
        let Work { gradient, target, action, outcomes, units } = self;
        let Target { mut parameter, mut moments } = std::mem::take(target);
        let Some((first, view)) = *units else {
            return gradient.act(&outcomes[0], action, Target { parameter, moments });
        };
        for (run, unit) in view.runs(first, parameter.len()) {
            let len = run.len();
            let target = Target {
                parameter: split(&mut parameter, len),
                moments: moments.each_mut().map(|moment| split(moment, len)),
            };
            gradient.range(run.start, len).act(&outcomes[unit], action, target);
        }
    }
}

/// Takes the first `len` elements off, or all where there are fewer.
fn split<'a>(slice: &mut &'a mut [f32], len: usize) -> &'a mut [f32] {
    let all = std::mem::take(slice);
    let len = len.min(all.len());
    let (first, rest) = all.split_at_mut(len);
    *slice = rest;
    first
}
