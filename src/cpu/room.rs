//! Vectors of references, which live for a step, in room that is kept from step to step.

use super::block::{Block, Values};
use super::blockwise::Piece;
use super::change::Change;
use super::fused::Work;
use super::parameter::ParameterMut;
use super::ratio::Measured;

/// Vectors without elements, kept for what they hold on to.
#[derive(Debug, Default)]
pub(super) struct Room {
    pub(super) blocks: Vec<Block<'static>>,
    pub(super) values: Vec<Values<'static>>,
    pub(super) parameters: Vec<Values<'static>>,
    pub(super) targets: Vec<ParameterMut<'static>>,
    pub(super) work: Vec<Change<'static>>,
    pub(super) pieces: Vec<Piece<'static>>,
    pub(super) fused: Vec<Work<'static>>,
    pub(super) measured: Vec<Measured>,
    pub(super) ratios: Vec<f32>,
}
