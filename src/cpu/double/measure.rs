//! tensors -> sums of tensors and segments.

use crate::segments::{Owner, Segments, UnitView};

use super::super::block::{Values, with_elements};
use super::super::threads;
use super::block::{self, BLOCK};
use super::element::Wide;
use super::norm::Norm;
use super::rules::{Most, Rules};
use super::sum::Sum;

/// Elements that one thread adds at a time.
const PIECE: usize = 32 * BLOCK;
/// Scattered units that are gathered side by side, so that each line of memory is read once.
const SIDE_BY_SIDE: usize = 16;
/// A block and a line of memory: blocks that lie a power of two apart would share a few places of the cache.
const APART: usize = BLOCK + 8;

/// Sums of a set.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Measured {
    pub(super) norm: Norm,
    /// One a tensor, and one a tensor's parameters.
    pub(super) tensors: Vec<Sum>,
    pub(super) tensor_parameters: Vec<Sum>,
    /// One a segment, and one a segment's parameters.
    pub(super) segments: Vec<Sum>,
    pub(super) parameters: Vec<Sum>,
}

/// What one thread adds at a time: elements `from` to `end` of a tensor, or of each of some of its units.
#[derive(Clone, Copy)]
struct Work<'a> {
    values: Values<'a>,
    tensor: u32,
    parameters: bool,
    most: u64,
    from: usize,
    end: usize,
    units: Option<(UnitView, u64, u64)>,
}

impl Measured {
    pub(super) fn new(parts: &Segments, rules: &Rules) -> Measured {
        let norm = rules.norm;
        let nothing = |count: usize| vec![Sum::nothing(norm); count];
        let (tensors, segments) = (parts.owners.len(), parts.count as usize);
        let only_where = |count: usize| if parts.parameters { count } else { 0 };
        Measured {
            norm,
            tensors: nothing(tensors),
            tensor_parameters: nothing(only_where(tensors)),
            segments: nothing(segments),
            parameters: nothing(only_where(segments)),
        }
    }

    /// Whether a gradient that is limited is not finite.
    pub(super) fn non_finite(&self, parts: &Segments) -> bool {
        let mut limited = parts.limits.iter().filter(|limit| !limit.excluded);
        limited.any(|limit| {
            let own = limit.first as usize..(limit.first + limit.segments) as usize;
            self.segments[own].iter().any(|sum| sum.non_finite > 0)
        })
    }

    /// Adds all tensors, and their parameters where the clip compares with them.
    pub(super) fn add(
        &mut self,
        tensors: &[Values<'_>],
        parameters: &[Values<'_>],
        parts: &Segments,
        rules: &Rules,
    ) {
        let mut work = Vec::new();
        for (&values, tensor) in tensors.iter().zip(0..) {
            cut(values, tensor, false, rules.most.of(values.dtype()), parts, &mut work);
        }
        for (&values, tensor) in parameters.iter().zip(0..) {
            cut(values, tensor, true, Most::FINITE, parts, &mut work);
        }
        let elements: u64 = work.iter().map(Work::elements).sum();
        let norm = self.norm;
        let mut sums = vec![Vec::new(); work.len()];
        threads::share(&mut sums, elements, &|first, to| {
            to.iter_mut().zip(&work[first..]).for_each(|(to, w)| *to = w.sums(norm));
        });
        work.iter().zip(&sums).for_each(|(w, sums)| self.take(w, sums, parts));
        self.close(parts);
    }

    fn take(&mut self, work: &Work<'_>, sums: &[Sum], parts: &Segments) {
        let (tensors, segments) = if work.parameters {
            (&mut self.tensor_parameters, &mut self.parameters)
        } else {
            (&mut self.tensors, &mut self.segments)
        };
        let tensor = &mut tensors[work.tensor as usize];
        sums.iter().for_each(|sum| tensor.merge(sum, self.norm));
        if let (Owner::Units { first, .. }, Some((_, unit, _))) =
            (parts.owners[work.tensor as usize], work.units)
        {
            let own = &mut segments[first as usize + unit as usize..];
            own.iter_mut().zip(sums).for_each(|(segment, sum)| segment.merge(sum, self.norm));
        }
    }

    /// Adds whole tensors to their segments.
    fn close(&mut self, parts: &Segments) {
        let Measured { norm, tensors, tensor_parameters, segments, parameters } = self;
        for (own, segments) in [(tensors, segments), (tensor_parameters, parameters)] {
            for (sum, owner) in own.iter().zip(&parts.owners) {
                if let Owner::One(segment) = owner {
                    segments[*segment as usize].merge(&sum.carried(), *norm);
                }
            }
        }
    }
}

/// Appends what there is to do for a tensor.
fn cut<'a>(
    values: Values<'a>,
    tensor: u32,
    parameters: bool,
    most: u64,
    parts: &Segments,
    work: &mut Vec<Work<'a>>,
) {
    let mut push = |from: usize, end: usize, units| {
        work.push(Work { values, tensor, parameters, most, from, end, units });
    };
    let pieces = |len: usize| (0..len).step_by(PIECE).map(move |at| (at, (at + PIECE).min(len)));
    match parts.owners[tensor as usize] {
        Owner::One(_) => pieces(values.len()).for_each(|(from, end)| push(from, end, None)),
        Owner::Units { view, .. } => {
            let len = view.len as usize;
            let side = if view.contiguous() { 1 } else { SIDE_BY_SIDE };
            let together = (PIECE / len.max(1)).max(side) as u64;
            for first in (0..view.units).step_by(together as usize) {
                let end = (first + together).min(view.units);
                pieces(len).for_each(|(from, to)| push(from, to, Some((view, first, end))));
            }
        }
    }
}

impl Work<'_> {
    fn elements(&self) -> u64 {
        (self.end - self.from) as u64 * self.units.map_or(1, |(_, first, end)| end - first)
    }

    /// One sum a unit, or one.
    fn sums(&self, norm: Norm) -> Vec<Sum> {
        with_elements!(Values, self.values, e => self.sums_of(e, norm))
    }

    fn sums_of<T: Wide>(&self, elements: &[T], norm: Norm) -> Vec<Sum> {
        let mut magnitudes = [0; BLOCK];
        let mut sum = |own: &[T]| block::sum(own, self.most, norm, self.tensor, &mut magnitudes);
        match self.units {
            None => vec![sum(&elements[self.from..self.end])],
            Some((view, first, end)) if view.contiguous() => (first..end)
                .map(|unit| {
                    let at = view.kept.at(unit) as usize;
                    sum(&elements[at + self.from..at + self.end])
                })
                .collect(),
            Some((view, first, end)) => self.scattered(elements, &view, (first, end), norm),
        }
    }

    /// As [`Work::sums_of`], of units whose elements are not neighbours.
    fn scattered<T: Wide>(
        &self,
        elements: &[T],
        view: &UnitView,
        (first, end): (u64, u64),
        norm: Norm,
    ) -> Vec<Sum> {
        let mut sums = vec![Sum::nothing(norm); (end - first) as usize];
        let mut gathered = vec![[0; APART]; SIDE_BY_SIDE.min(sums.len())];
        for (unit, sums) in (first..end).step_by(SIDE_BY_SIDE).zip(sums.chunks_mut(SIDE_BY_SIDE)) {
            let origins: [u64; SIDE_BY_SIDE] = std::array::from_fn(|k| view.kept.at(unit + k as u64));
            for from in (self.from..self.end).step_by(BLOCK) {
                let len = (self.end - from).min(BLOCK);
                for (i, at) in (from..from + len).enumerate() {
                    let offset = view.reduced.at(at as u64);
                    for (own, origin) in gathered.iter_mut().zip(&origins).take(sums.len()) {
                        own[i] = elements[(origin + offset) as usize].magnitude();
                    }
                }
                for (own, sum) in gathered.iter_mut().zip(&mut *sums) {
                    let largest = own[..len].iter().copied().max().unwrap_or(0);
                    let own = &mut own[..len.next_multiple_of(4)];
                    block::add(own, len, largest, self.most, norm, self.tensor, sum);
                }
            }
        }
        sums
    }
}

/// The sum of a piece of a tensor.
pub(super) fn sum_of(values: Values<'_>, norm: Norm) -> Sum {
    let len = values.len();
    let sums = threads::map(Sum::nothing(norm), len.div_ceil(PIECE), 4, |i| {
        let own = values.range(i * PIECE, (len - i * PIECE).min(PIECE));
        let mut magnitudes = [0; BLOCK];
        with_elements!(Values, own, e => block::sum(e, Most::FINITE, norm, 0, &mut magnitudes))
    });
    let mut sum = Sum::nothing(norm);
    sums.iter().for_each(|own| sum.merge(own, norm));
    sum
}
