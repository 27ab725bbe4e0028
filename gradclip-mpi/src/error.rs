//! Why ranks did not go on together.

use std::time::Duration;

use gradclip::{ClipError, PrepareError};

/// What can fail between ranks.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Ranks that begin with different things. Every rank has this error, with the same words.
    #[error("ranks disagree: {0}")]
    Disagree(String),
    /// An exchange took longer than was allowed: another rank died, or never called. No sum was taken from it, and
    /// nothing is exchanged over these ranks any more.
    #[error(
        "{what}: required an answer of every rank within {required:?}, given none after {given:?}: \
         a rank ended, or did not call"
    )]
    Late {
        /// What was exchanged.
        what: &'static str,
        /// How long a rank waits.
        required: Duration,
        /// How long it waited.
        given: Duration,
    },
    /// MPI returned an error. Nothing is exchanged over these ranks any more.
    #[error("{what}: MPI says: {said}")]
    Mpi {
        /// What was exchanged.
        what: &'static str,
        /// MPI's own words.
        said: String,
    },
    /// An exchange over ranks of which one was lost before.
    #[error("{what}: required ranks that all answered so far, given ranks of which one was lost")]
    Lost {
        /// What was to be exchanged.
        what: &'static str,
    },
    /// What is exchanged does not fit.
    #[error("{what}: required {required}, given {given}")]
    Range {
        /// What.
        what: &'static str,
        /// What is needed.
        required: String,
        /// What there is.
        given: String,
    },
    /// A clip, or tensors, that this rank refuses.
    #[error(transparent)]
    Clip(#[from] ClipError),
    /// An optimiser's step that this rank refuses.
    #[error(transparent)]
    Step(#[from] gradclip::StepError),
    /// A pass that cannot be prepared on this rank.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// This rank's device failed.
    #[error("device: {0}")]
    Device(String),
}
