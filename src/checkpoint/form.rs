//! Which tensors a run's file has, and whether a file is one of that run.

use std::collections::{BTreeMap, BTreeSet};

use crate::clip::Clip;
use crate::error::CheckpointError;
use crate::history::History;
use crate::optimizer::Optimizer;
use crate::tensor::{DType, Precision, TensorInfo};

use super::saved::{Checkpoint, HISTORY, Saved};

/// How names of numbers end.
const STEP: &str = ".step";
const PRODUCT: &str = ".mu_product";

/// What a tensor of the file is to tensor `t` of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Parameter(usize),
    Master(usize),
    Moment(usize, usize),
    Sum(usize),
}

/// A tensor that a file of the run has.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) role: Role,
    pub(crate) name: String,
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<usize>,
}

/// Parts of a run with their bytes in a file; without, zeros.
pub(crate) type Found<'p, 'c> = Vec<(&'p Part, Option<&'c [u8]>)>;

/// All that a file of the run has.
#[derive(Clone, Debug)]
pub(crate) struct Form {
    pub(crate) parts: Vec<Part>,
    names: Vec<String>,
    /// Whether the product of all μ is kept.
    product: bool,
    /// Whether there are moments, which mean nothing without the number of steps.
    counts: bool,
}

impl Form {
    /// Of tensors whose parameters are kept so; `sums` where some micro-batches are pending.
    pub(crate) fn new(
        infos: &[TensorInfo],
        precisions: &[Precision],
        optimizer: &Optimizer,
        sums: bool,
    ) -> Result<Form, CheckpointError> {
        let mut parts = Vec::new();
        for (t, (info, precision)) in infos.iter().zip(precisions).enumerate() {
            let whole = || Box::from([info.elements]);
            let shape: Vec<usize> =
                info.shape.clone().unwrap_or_else(whole).iter().map(|&axis| axis as usize).collect();
            let mut add = |role, suffix: &str, dtype| {
                let name = format!("{}{suffix}", info.name);
                parts.push(Part { role, name, dtype, shape: shape.clone() });
            };
            add(Role::Parameter(t), "", precision.half().unwrap_or(DType::F32));
            if matches!(precision, Precision::Mixed(_)) {
                add(Role::Master(t), ".master", DType::F32);
            }
            for (k, suffix) in optimizer.moment_names().iter().enumerate() {
                add(Role::Moment(t, k), suffix, DType::F32);
            }
            if sums {
                add(Role::Sum(t), ".accumulator", DType::F32);
            }
        }
        let names: Vec<String> = infos.iter().map(|info| info.name.to_string()).collect();
        let form = Form { parts, names, product: optimizer.has_product(), counts: optimizer.moments() > 0 };
        form.distinct()?;
        Ok(form)
    }

    /// Names of numbers of a kind, one a tensor.
    fn numbers(&self, kind: &'static str) -> impl Iterator<Item = String> + '_ {
        let kept = kind != PRODUCT || self.product;
        self.names.iter().filter(move |_| kept).map(move |name| format!("{name}{kind}"))
    }

    /// Names of parts, numbers and the history.
    fn all_names(&self) -> impl Iterator<Item = String> + '_ {
        let parts = self.parts.iter().map(|part| part.name.clone());
        parts.chain(self.numbers(STEP)).chain(self.numbers(PRODUCT)).chain([HISTORY.to_owned()])
    }

    fn distinct(&self) -> Result<(), CheckpointError> {
        let mut seen = BTreeSet::new();
        match self.all_names().find(|name| !seen.insert(name.clone())) {
            None => Ok(()),
            Some(name) => Err(CheckpointError::Unexpected { name }),
        }
    }

    /// A run's parts, in the order of [`Form::parts`], as they are saved.
    pub(crate) fn checkpoint(
        &self,
        bytes: impl IntoIterator<Item = Vec<u8>>,
        history: History,
        accumulated: u32,
    ) -> Checkpoint {
        let parts = self.parts.iter().zip(bytes).map(|(part, bytes)| {
            (part.name.clone(), Saved { dtype: part.dtype, shape: part.shape.clone(), bytes })
        });
        let number =
            |value: f32| Saved { dtype: DType::F32, shape: Vec::new(), bytes: value.to_le_bytes().to_vec() };
        let (steps, product) = (history.updates() as f32, history.progress.momentum_product);
        let steps = self.numbers(STEP).map(|name| (name, number(steps)));
        let products = self.numbers(PRODUCT).map(|name| (name, number(product)));
        let tensors = parts.chain(steps).chain(products).collect();
        Checkpoint { tensors, history: Some(history), accumulated }
    }

    /// The parts that a file has, those that begin as zeros, and its history for a clip with so many limits, where it is one of this run.
    pub(crate) fn checked<'c>(
        &self,
        checkpoint: &'c Checkpoint,
        clip: &Clip,
        limits: usize,
    ) -> Result<(Found<'_, 'c>, History), CheckpointError> {
        let known: BTreeSet<String> = self.all_names().collect();
        if let Some(name) = checkpoint.tensors.keys().find(|name| !known.contains(*name)) {
            return Err(CheckpointError::Unexpected { name: name.clone() });
        }
        let mut found = Vec::new();
        for part in &self.parts {
            match (checkpoint.tensors.get(&part.name), part.role) {
                (Some(saved), _) => found.push((part, Some(part.checked(saved)?))),
                // What is in no file of the optimiser's state stays.
                (None, Role::Parameter(_)) => {}
                // A master of zeros begins as its parameter.
                (None, Role::Master(_)) => found.push((part, None)),
                (None, _) => return Err(CheckpointError::Missing { name: part.name.clone() }),
            }
        }
        Ok((found, self.history(checkpoint, clip, limits)?))
    }

    fn history(
        &self,
        checkpoint: &Checkpoint,
        clip: &Clip,
        limits: usize,
    ) -> Result<History, CheckpointError> {
        let [steps, product] = [STEP, PRODUCT].map(|kind| self.number(kind, &checkpoint.tensors));
        let (steps, product) = (steps?, product?);
        let begun =
            || History::begun_after(clip, limits, steps.unwrap_or(0.0) as u32, product.unwrap_or(1.0));
        let mut history = checkpoint.history.clone().unwrap_or_else(begun);
        history.fit(clip, limits)?;
        let kept = [
            ("steps so far", history.updates() as f32, steps),
            ("a product of", history.progress.momentum_product, product),
        ];
        match kept.into_iter().find(|(_, required, given)| given.is_some_and(|given| given != *required)) {
            None => Ok(history),
            Some((what, required, given)) => Err(CheckpointError::Header {
                what,
                required: required.to_string(),
                given: given.unwrap_or_default().to_string(),
            }),
        }
    }

    /// A number that all tensors agree on: of steps so far, or a product.
    fn number(
        &self,
        kind: &'static str,
        tensors: &BTreeMap<String, Saved>,
    ) -> Result<Option<f32>, CheckpointError> {
        let mut all: Option<f32> = None;
        for name in self.numbers(kind) {
            let Some(saved) = tensors.get(&name) else {
                if self.counts {
                    return Err(CheckpointError::Missing { name });
                }
                continue;
            };
            let value = saved.bytes.first_chunk().map(|bytes| f32::from_le_bytes(*bytes));
            let (most, whole) = if kind == STEP { (4e9, true) } else { (1.0, false) };
            let fits = |value: &f32| {
                (saved.dtype, saved.bytes.len()) == (DType::F32, 4)
                    && (0.0..=most).contains(value)
                    && (!whole || value.fract() == 0.0)
            };
            let number = value.filter(fits);
            if number.is_none() || (all.is_some() && all != number) {
                let least = format!("a number from 0 to {most}");
                let required = all.map_or(least, |number| format!("{number}, as others"));
                let given = value.map_or("none".into(), |value| value.to_string());
                return Err(CheckpointError::Tensor { name, required, given });
            }
            all = number;
        }
        Ok(all)
    }
}

impl Part {
    /// The bytes of a tensor that is this one.
    fn checked<'c>(&self, saved: &'c Saved) -> Result<&'c [u8], CheckpointError> {
        let Part { role, name, dtype, shape } = self;
        let wrong = |required, given| Err(CheckpointError::Tensor { name: name.clone(), required, given });
        if (saved.dtype, &saved.shape) != (*dtype, shape) {
            return wrong(format!("{dtype} of {shape:?}"), format!("{} of {:?}", saved.dtype, saved.shape));
        }
        // Squares. What is NaN or infinite a run may have left that keeps such gradients.
        if let Role::Moment(_, 1..) = role {
            let values =
                saved.bytes.chunks_exact(4).filter_map(|b| b.first_chunk()).map(|b| f32::from_le_bytes(*b));
            if let Some(value) = values.into_iter().find(|value| *value < 0.0) {
                return wrong("means of squares".into(), value.to_string());
            }
        }
        Ok(&saved.bytes)
    }
}
