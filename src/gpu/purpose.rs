//! What a pass is for.

use crate::clip::Clip;
use crate::error::ClipError;
use crate::segments::check_in_place;
use crate::tensor::TensorInfo;

/// What a pass is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Gradients are clipped where they lie.
    InPlace,
    /// Outcomes are decided for something else, and gradients are only read.
    ReadOnly,
    /// The same, and an optimiser's step is what follows.
    Step,
    /// The same, of sums over micro-batches, of which there may be fewer at times.
    StepOfSums,
}

impl Purpose {
    /// Whether an optimiser's step is what follows.
    pub(super) fn steps(self) -> bool {
        matches!(self, Purpose::Step | Purpose::StepOfSums)
    }

    /// That unscaling loses nothing, or may: where gradients are only read it does not.
    pub(super) fn check(self, infos: &[TensorInfo], clip: &Clip) -> Result<(), ClipError> {
        if self == Purpose::InPlace { check_in_place(infos, clip) } else { Ok(()) }
    }
}
