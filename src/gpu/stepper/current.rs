//! What setters change of a step.

use crate::layout::FusedTensor;
use crate::optimizer::Optimizer;

/// The constants of a step, of which the device has a copy.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) optimizer: Optimizer,
    pub(super) tensors: Vec<FusedTensor>,
}
