//! A clip in two halves on slices: decided over gradients that are only read, applied wherever their
//! elements are written, piece by piece. What `Pass::record_norm` and `Pass::record_apply` are on the GPU.

use std::sync::Arc;

use crate::clip::{Clip, NormType, Summation};
use crate::combine;
use crate::error::ClipError;
use crate::history::History;
use crate::layout::{CHUNK, Outcome, Sum};
use crate::norm::norm_of;
use crate::real::F32_MIN_EXPONENT;
use crate::report::Report;
use crate::segments::Segments;
use crate::tensor::{DType, Group, TensorInfo};

use super::block::Values;
use super::flow::advance_without_step;
use super::grads::{Slice, SliceMut};
use super::reduce::Scratch;
use super::set::Set;
use super::trace::decided;
use super::{change, double, threads};

/// One named gradient in host memory that is only read.
#[derive(Clone, Debug)]
pub struct GradRef<'a> {
    name: Arc<str>,
    values: Values<'a>,
    shape: Option<Box<[u64]>>,
    group: Option<Group>,
    parameter: Option<Values<'a>>,
}

impl<'a> GradRef<'a> {
    /// A slice of `f32`, `f16`, `bf16` or `f64`.
    pub fn new(name: impl Into<Arc<str>>, elements: impl Into<Slice<'a>>) -> GradRef<'a> {
        let values = elements.into().data;
        GradRef { name: name.into(), values, shape: None, group: None, parameter: None }
    }

    /// Sets the shape, row-major, for scopes that cut tensors into units or rows.
    #[must_use]
    pub fn shape(self, shape: &[u64]) -> GradRef<'a> {
        GradRef { shape: Some(shape.into()), ..self }
    }

    /// Puts the tensor into a group.
    #[must_use]
    pub fn group(self, group: &Group) -> GradRef<'a> {
        GradRef { group: Some(group.clone()), ..self }
    }

    /// Names the parameters that this is the gradient of, for [`Rule::Agc`](crate::Rule::Agc).
    #[must_use]
    pub fn parameter(self, parameter: impl Into<Slice<'a>>) -> GradRef<'a> {
        GradRef { parameter: Some(parameter.into().data), ..self }
    }

    pub(super) fn info(&self) -> TensorInfo {
        TensorInfo {
            name: self.name.clone(),
            dtype: self.values.dtype(),
            elements: self.values.len() as u64,
            shape: self.shape.clone(),
            group: self.group.clone(),
            has_parameter: self.parameter.is_some(),
        }
    }
}

/// What a clip does to a set of gradients, decided and not applied yet.
#[derive(Clone, Debug)]
pub struct Decision {
    infos: Vec<TensorInfo>,
    parts: Segments,
    outcomes: Outcomes,
    report: Report,
}

/// Of either path.
#[derive(Clone, Debug)]
enum Outcomes {
    Single(Vec<Outcome>),
    Double(double::Decided),
}

/// Measures gradients and decides what `clip` does to them, without writing any: [`Decision::apply`] does
/// that to their elements, wherever these are by then. For gradients that lie in a mapped file, say.
///
/// ```
/// use gradclip::{Clip, History, cpu::{self, GradRef}};
///
/// let (w, b) = ([30.0f32, 0.0], [40.0f32]);
/// let grads = [GradRef::new("w", &w[..]), GradRef::new("b", &b[..])];
/// let decision = cpu::decide(&grads, &Clip::global_norm(5.0), &mut History::default())?;
/// assert_eq!(decision.report().norm(), Some(50.0));
/// let mut copy = w;
/// decision.apply(0, 0, &mut copy[..]);
/// assert_eq!(copy, [3.0, 0.0]);
/// # Ok::<(), gradclip::ClipError>(())
/// ```
///
/// # Errors
///
/// As [`clip_with`](super::clip_with()).
pub fn decide(grads: &[GradRef<'_>], clip: &Clip, history: &mut History) -> Result<Decision, ClipError> {
    let infos: Vec<TensorInfo> = grads.iter().map(GradRef::info).collect();
    let given: Vec<Option<Values<'_>>> = grads.iter().map(|g| g.parameter).collect();
    let (Set { infos, parts, double }, parameters) = Set::new(infos, &given, clip)?;
    history.fit(clip, parts.limits.len())?;
    let values: Vec<Values<'_>> = grads.iter().map(|g| g.values).collect();
    let (outcomes, report) = if double {
        let (decided, report) =
            double::decide(&values, &parameters, &infos, &parts, (clip, &parts.thresholds(clip)), history);
        (Outcomes::Double(decided), report)
    } else {
        let trace = decided(&values, &parameters, &infos, &parts, clip, history);
        advance_without_step(clip, history);
        (Outcomes::Single(trace.outcomes), trace.report.advanced(clip, &history.progress, None))
    };
    Ok(Decision { infos, parts, outcomes, report })
}

impl Decision {
    /// What was measured and decided.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Whether anything of a tensor is written; false for a tensor that there is not.
    pub fn changes(&self, tensor: usize) -> bool {
        let Some(&owner) = self.parts.owners.get(tensor) else { return false };
        match &self.outcomes {
            Outcomes::Single(all) => change::changes(owner, all),
            Outcomes::Double(decided) => decided.changes(owner),
        }
    }

    /// Applies it to `elements` of a tensor, the first of which is its element `first`. They are written
    /// in their own type, which may be wider than that of the gradient that was measured.
    pub fn apply<'e>(&self, tensor: usize, first: u64, elements: impl Into<SliceMut<'e>>) {
        let (Some(&owner), true) = (self.parts.owners.get(tensor), self.changes(tensor)) else { return };
        let block = elements.into().block;
        match &self.outcomes {
            Outcomes::Single(all) => change::apply([(block, owner, first)], all, &mut Vec::new()),
            Outcomes::Double(decided) => decided.apply(vec![(owner, self.infos[tensor].dtype, first, block)]),
        }
    }

    /// The element type of a tensor.
    pub fn dtype(&self, tensor: usize) -> Option<DType> {
        self.infos.get(tensor).map(|info| info.dtype)
    }
}

/// The norm of many tensors together, taken piece by piece: the same bits as in one.
///
/// ```
/// use gradclip::{NormType, cpu::Norm};
///
/// let mut norm = Norm::new(NormType::Two);
/// norm.add(&[3.0f32][..]);
/// norm.add(&[0.0f32, 4.0][..]);
/// assert_eq!(norm.norm(), 5.0);
/// ```
#[derive(Clone, Debug)]
pub struct Norm {
    norm: NormType,
    sums: Sums,
}

/// Of either path.
#[derive(Clone, Debug)]
enum Sums {
    Single(Summation, Sum),
    Double(double::Running),
}

impl Norm {
    /// Of nothing yet. A norm of any p other than 1, 2 and infinity depends on how pieces are cut, in its
    /// last bits.
    pub fn new(norm: NormType) -> Norm {
        let summation = Summation::from(norm);
        Norm { norm, sums: Sums::Single(summation, combine::NOTHING) }
    }

    /// As [`Norm::new`], for pieces of which any is of `f64`: all are added as `f64`, to a norm within
    /// 0.65 ulp of an `f64`.
    pub fn f64(norm: NormType) -> Norm {
        Norm { norm, sums: Sums::Double(double::Running::new(norm.into())) }
    }

    /// Adds a piece, which begins a tensor or at a multiple of 16,384 elements of one. With the first one of
    /// `f64` the norm becomes as if begun by [`Norm::f64`], but that pieces before are within 2^-27.
    pub fn add<'a>(&mut self, piece: impl Into<Slice<'a>>) {
        let values = piece.into().data;
        match &mut self.sums {
            Sums::Single(summation, sum) if values.dtype() == DType::F64 => {
                let mut running = match *sum == combine::NOTHING {
                    true => double::Running::new(self.norm.into()),
                    false => double::Running::after(sum, *summation),
                };
                running.add(values);
                self.sums = Sums::Double(running);
            }
            Sums::Single(summation, sum) => *sum = sum_with(*sum, values, *summation),
            Sums::Double(running) => running.add(values),
        }
    }

    /// The norm so far: infinite or NaN where elements are.
    pub fn norm(&self) -> f64 {
        match &self.sums {
            Sums::Single(summation, sum) => match (sum.non_finite, sum.nan) {
                (0, _) => norm_of(sum, *summation).round(F32_MIN_EXPONENT).to_f64(),
                (_, 0) => f64::INFINITY,
                _ => f64::NAN,
            },
            Sums::Double(running) => running.norm(),
        }
    }
}

fn sum_with(before: Sum, values: Values<'_>, summation: Summation) -> Sum {
    let chunks = values.len().div_ceil(CHUNK as usize);
    let next = Values::F32(&[]);
    let mut sums = vec![before; chunks + 1];
    threads::each(&mut sums[1..], 4, &|first, own| {
        let scratch = &mut Scratch::new();
        for (i, to) in (first as u64..).zip(own) {
            let partial = values.chunk(i * u64::from(CHUNK)).reduce(next, summation, scratch);
            *to = combine::item(&partial, 0, summation);
        }
    });
    combine::combine(sums.into_iter(), summation)
}
