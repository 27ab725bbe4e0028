//! What is saved of a run.

use std::collections::BTreeMap;

use crate::error::CheckpointError;
use crate::history::History;
use crate::tensor::DType;

/// The name of the history in a file.
pub(super) const HISTORY: &str = "gradclip.history";

/// What a run goes on from: parameters, masters, the optimiser's state, sums of micro-batches where some are pending, and what
/// thresholds, loss scale and counts remember.
///
/// [`Trainer::save`](crate::Trainer::save) and [`cpu::Trainer::save`](crate::cpu::Trainer::save) make one, `load` goes on from it, on
/// another adapter too, to the same bits as not having stopped. In a file tensor `NAME` of the run is
///
/// | name in the file | holds | type |
/// |---|---|---|
/// | `NAME` | the parameter | its own |
/// | `NAME.master` | the master of a parameter of 16 bits | `F32` |
/// | `NAME.exp_avg`, `NAME.exp_avg_sq`, `NAME.max_exp_avg_sq` | Adam's moments (Lion has the first), Optax' `mu` and `nu` | `F32` |
/// | `NAME.momentum_buffer` | the momentum of gradient descent, Optax' `trace` | `F32` |
/// | `NAME.step` | steps so far, without those skipped; alike for all | `F32`, no axis |
/// | `NAME.mu_product` | NAdam's product of all μ so far; alike for all | `F32`, no axis |
/// | `NAME.accumulator` | the sum of micro-batches since the last step | `F32` |
/// | `gradclip.history` | a [`History`] | `U8` |
///
/// with `gradclip.version` and `gradclip.accumulated`, the number of those micro-batches, in the header. A file without history,
/// `optimizer.state_dict()` of PyTorch written under these names say (`examples/torch_state.py`), begins one after so many steps; one
/// without parameters leaves them as they are.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    pub(crate) tensors: BTreeMap<String, Saved>,
    pub(crate) history: Option<History>,
    pub(crate) accumulated: u32,
}

/// A tensor of a file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Saved {
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<usize>,
    /// Little-endian, row-major.
    pub(crate) bytes: Vec<u8>,
}

impl Checkpoint {
    /// What thresholds, loss scale and counts remember, where the file says so.
    pub fn history(&self) -> Option<&History> {
        self.history.as_ref()
    }

    /// Micro-batches that were summed since the last step.
    pub fn accumulated(&self) -> u32 {
        self.accumulated
    }

    /// The micro-batches since the last step, where a step has more than those.
    pub(crate) fn pending(&self, micro_batches: u32) -> Result<u32, CheckpointError> {
        if self.accumulated < micro_batches {
            return Ok(self.accumulated);
        }
        let (what, required) = ("micro-batches since the last step", format!("fewer than {micro_batches}"));
        Err(CheckpointError::Header { what, required, given: self.accumulated.to_string() })
    }

    /// Each tensor: its name in the file, type, shape, and elements as little-endian bytes.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, DType, &[usize], &[u8])> {
        self.tensors.iter().map(|(name, t)| (name.as_str(), t.dtype, &t.shape[..], &t.bytes[..]))
    }
}
