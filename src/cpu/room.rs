//! Vectors of references, which live for a step, in room that is kept from step to step.

use super::block::{Block, Values};
use super::change::Change;
use super::fused::Work;
use super::parameter::ParameterMut;

/// Vectors without elements, kept for what they hold on to.
#[derive(Debug, Default)]
pub(super) struct Room {
    pub(super) blocks: Vec<Block<'static>>,
    pub(super) values: Vec<Values<'static>>,
    pub(super) parameters: Vec<Values<'static>>,
    pub(super) targets: Vec<ParameterMut<'static>>,
    pub(super) work: Vec<Change<'static>>,
    pub(super) fused: Vec<Work<'static>>,
}

/// An empty vector of other elements in the same place: what one step leaves, the next one fills.
pub(super) fn recycled<T, U>(mut vector: Vec<T>) -> Vec<U> {
    vector.clear();
    // The standard library collects in place where elements have the same size.
    vector.into_iter().filter_map(|_| None).collect()
}
