//! What is wrong with a private sum.

use super::asked::ClipError;

/// What can fail in a private sum, before anything is written.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PrivateError {
    /// The clip gives examples no bound, or a tensor lacks what it needs.
    #[error(transparent)]
    Clip(#[from] ClipError),
    /// A constant is out of its range.
    #[error("private sum: required a {what} of {required}, given {given}")]
    Constant {
        /// Which constant.
        what: &'static str,
        /// Its range.
        required: &'static str,
        /// Its value.
        given: f64,
    },
    /// A lot has more examples than sums of 64 bits hold.
    #[error("private sum: required at most {required} examples in a lot, given {given}")]
    Examples {
        /// As many as sums hold.
        required: u64,
        /// Those of the lot, with the batch that was refused.
        given: u64,
    },
    /// Every number of a release was used, and noise is never drawn twice.
    #[error("private sum: required at most 2^32 releases of one seed, given one more")]
    Releases,
    /// What holds for a whole lot was to change within one.
    #[error(
        "private sum: required a lot without examples, to change what holds for all of it, given one of {given}"
    )]
    InLot {
        /// Examples of the lot so far.
        given: u64,
    },
}
