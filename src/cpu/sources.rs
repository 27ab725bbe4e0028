//! What is measured: tensors and parameters in the order of their partials.

use std::ops::Range;

use crate::plan::partials_in_order;
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

/// All tensors, then all parameters, in the order of their partials.
pub(super) fn sources(infos: &[TensorInfo], parts: &Segments) -> Vec<Source> {
    partials_in_order(infos, parts)
        .map(|(number, elements, partials)| Source { number, elements, partials })
        .collect()
}

pub(super) fn elements(sources: &[Source]) -> u64 {
    sources.iter().map(|s| s.elements).sum()
}
