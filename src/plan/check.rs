//! What cannot be planned.

use crate::error::PlanError;
use crate::layout::{MOST_CHUNKS, Outcome, Partial};
use crate::segments::Segments;
use crate::tensor::DType;

use super::dispatch::LARGEST_WINDOW;
use super::limits::PlanLimits;
use super::placed::{Placed, chunks};
use super::placement::Placement;

/// A range of a buffer. Those that are only read may share bytes with each other.
pub(super) struct BoundRange<'a> {
    pub(super) at: &'a Placement,
    pub(super) may_share: bool,
}

pub(super) fn ranges(all: &[BoundRange<'_>]) -> Result<(), PlanError> {
    for t in all.iter().map(|r| r.at) {
        let required = t.dtype.size();
        if t.offset % required != 0 {
            let (tensor, dtype, given) = (t.name.clone(), t.dtype, t.offset);
            return Err(PlanError::Unaligned { tensor, dtype, required, given });
        }
        let end = u128::from(t.offset) + u128::from(t.elements) * u128::from(required);
        let required = end.next_multiple_of(4);
        if required > u128::from(t.buffer_size) {
            return Err(PlanError::OutOfRange { tensor: t.name.clone(), required, given: t.buffer_size });
        }
    }
    let mut order: Vec<&BoundRange<'_>> = all.iter().filter(|r| r.at.elements > 0).collect();
    order.sort_by_key(|r| (r.at.buffer, r.at.offset));
    let mut furthest: Option<(&BoundRange<'_>, u64)> = None;
    for r in order {
        let end = r.at.offset + r.at.elements * r.at.dtype.size();
        if let Some((first, until)) = furthest
            && first.at.buffer == r.at.buffer
            && r.at.offset < until
        {
            if !(first.may_share && r.may_share) {
                let (first, second) = (first.at.name.clone(), r.at.name.clone());
                return Err(PlanError::Overlap { first, second, at: r.at.offset });
            }
            if end <= until {
                continue;
            }
        }
        furthest = Some((r, end));
    }
    Ok(())
}

/// That adapters have kernels for the element types.
pub(super) fn dtypes(tensors: &[Placement]) -> Result<(), PlanError> {
    let all = tensors.iter().flat_map(|t| std::iter::once(t).chain(t.parameter.as_deref()));
    match all.into_iter().find(|t| t.dtype == DType::F64) {
        None => Ok(()),
        Some(t) => Err(PlanError::DType { tensor: t.name.clone(), given: t.dtype }),
    }
}

pub(super) fn sizes(
    placed: &[Placed<'_>],
    parts: &Segments,
    norms: u64,
    limits: &PlanLimits,
) -> Result<(), PlanError> {
    // Every table is bound whole.
    let most = |size: usize| limits.max_binding.min(LARGEST_WINDOW) / size as u64;
    let total: u128 = placed.iter().map(|p| u128::from(chunks(p.at.elements, p.owner))).sum();
    let segments = u128::from(parts.count) * 2 + 1;
    let checks = [
        ("chunks of 16,384 elements", total, most(size_of::<Partial>()).min(MOST_CHUNKS)),
        ("tensors", placed.len() as u128, most(64)),
        ("segments", segments, most(size_of::<Outcome>())),
        ("norms that adaptive thresholds remember", norms.into(), most(size_of::<f32>())),
    ];
    for (what, given, required) in checks {
        if given > u128::from(required) {
            let given = u64::try_from(given).unwrap_or(u64::MAX);
            return Err(PlanError::TooLarge { what, required, given });
        }
    }
    Ok(())
}
