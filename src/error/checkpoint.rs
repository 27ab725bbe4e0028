//! What is wrong with a saved run.

use super::asked::ClipError;
use super::device::{PrepareError, ReadBackError};

/// A [`Checkpoint`](crate::Checkpoint) that cannot be read, or is that of another run. Nothing changes then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The bytes are no safetensors file.
    #[error("saved run: {source}")]
    File {
        /// What the reader of safetensors says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another version of the library wrote it, or another value stands where something else is to be.
    #[error("saved run: required {what} {required}, given `{}`", given.escape_debug())]
    Header {
        /// What it is.
        what: &'static str,
        /// What it may be.
        required: String,
        /// What it is in the file.
        given: String,
    },
    /// A tensor is not there.
    #[error("saved run: required a tensor `{}`, given none", name.escape_debug())]
    Missing {
        /// Its name in the file.
        name: String,
    },
    /// A tensor is there that belongs to no tensor of this run, or two have one name.
    #[error("saved run: required tensors of this run alone and each once, given `{}`", name.escape_debug())]
    Unexpected {
        /// Its name in the file.
        name: String,
    },
    /// A tensor is of another type or shape, or holds what no run leaves.
    #[error("saved run, tensor `{}`: required {required}, given {given}", name.escape_debug())]
    Tensor {
        /// Its name in the file.
        name: String,
        /// What it should be.
        required: String,
        /// What it is.
        given: String,
    },
    /// A buffer cannot be copied from or to.
    #[error("saved run, tensor `{}`: required a buffer of usage {required:?}, given {given:?}", name.escape_debug())]
    Usage {
        /// Its name in the file.
        name: String,
        /// What is missing.
        required: wgpu::BufferUsages,
        /// What the buffer has.
        given: wgpu::BufferUsages,
    },
    /// Memory for the copies could not be had.
    #[error("saved run: {source}")]
    Prepare {
        /// What is wrong.
        #[from]
        source: PrepareError,
    },
    /// The copies did not arrive.
    #[error("saved run: {source}")]
    ReadBack {
        /// What is wrong.
        #[from]
        source: ReadBackError,
    },
    /// The history is that of another clip, or holds what no run leaves.
    #[error("saved run: {source}")]
    History {
        /// What is wrong with it.
        #[from]
        source: ClipError,
    },
}

impl CheckpointError {
    /// A run that counts micro-batches by a rule: what the rule remembers is not part of it.
    pub(crate) fn gated() -> CheckpointError {
        let (what, required) = ("a saved run", "a trainer that leaves out no micro-batches");
        ClipError::Combination { what, required }.into()
    }

    /// The reader's own type is no part of the interface.
    pub(crate) fn file(error: safetensors::SafeTensorError) -> CheckpointError {
        CheckpointError::File { source: error.into() }
    }
}
