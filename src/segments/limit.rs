//! What segments are limited to.

use std::sync::Arc;

use crate::tensor::TensorInfo;

/// Segments that share one limit.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Limit {
    pub(crate) first: u32,
    pub(crate) segments: u32,
    /// Elements of each segment.
    pub(crate) elements: u64,
    /// That of its group, if it has one.
    pub(super) threshold: Option<f64>,
    /// Measured and unscaled, never limited.
    pub(crate) excluded: bool,
    /// Name of the group, where the segment is one.
    pub(crate) name: Option<Arc<str>>,
}

impl Limit {
    pub(super) fn new(first: u32, segments: u32, elements: u64) -> Limit {
        Limit { first, segments, elements, threshold: None, excluded: false, name: None }
    }

    /// One segment, which is the tensor.
    pub(super) fn of(t: &TensorInfo, first: u32) -> Limit {
        let threshold = t.group.as_ref().and_then(|g| g.threshold);
        Limit { threshold, excluded: t.excluded(), ..Limit::new(first, 1, t.elements) }
    }
}
