//! What is measured: tensors and parameters in the order of their partials.

use std::ops::Range;

use crate::plan::{chunks, order_of_partials};
use crate::real::largest_unscaled;
use crate::segments::Segments;
use crate::tensor::TensorInfo;

use super::block::Values;

/// A tensor or its parameters, with its partials.
#[derive(Debug)]
pub(super) struct Source {
    /// Its number among tensors and their parameters.
    pub(super) number: usize,
    pub(super) elements: u64,
    pub(super) partials: Range<usize>,
}

/// The elements of all tensors, and of all parameters where they are measured.
#[derive(Clone, Copy)]
pub(super) struct Given<'a> {
    tensors: &'a [Values<'a>],
    parameters: &'a [Values<'a>],
    /// The largest magnitudes of either that count as finite, as `f32` bits.
    largest: [u32; 2],
}

impl<'a> Given<'a> {
    /// Tensors are unscaled, parameters not.
    pub(super) fn new(tensors: &'a [Values<'a>], parameters: &'a [Values<'a>], unscale: f32) -> Given<'a> {
        Given { tensors, parameters, largest: [unscale, 1.0].map(largest_unscaled) }
    }

    pub(super) fn values(&self, number: usize) -> Values<'a> {
        match number.checked_sub(self.tensors.len()) {
            None => self.tensors[number],
            Some(i) => self.parameters[i],
        }
    }

    pub(super) fn largest(&self, number: usize) -> u32 {
        self.largest[usize::from(number >= self.tensors.len())]
    }
}

/// All tensors, then all parameters, in the order of their partials. Parameters of excluded tensors are not read.
pub(super) fn sources(infos: &[TensorInfo], parts: &Segments) -> Vec<Source> {
    let count = infos.len() * if parts.parameters { 2 } else { 1 };
    let mut first = 0;
    order_of_partials(infos, count)
        .into_iter()
        .map(|number| {
            let elements = match number.checked_sub(infos.len()) {
                Some(i) if infos[i].excluded() => 0,
                _ => infos[number % infos.len()].elements,
            };
            let partials = first..first + chunks(elements, parts.owner_of(number)) as usize;
            first = partials.end;
            Source { number, elements, partials }
        })
        .collect()
}

pub(super) fn elements(sources: &[Source]) -> u64 {
    sources.iter().map(|s| s.elements).sum()
}
