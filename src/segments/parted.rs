//! Tensors parted into segments and limits, a function a scope.

use std::collections::HashMap;

use crate::clip::{Scope, Units};
use crate::error::ClipError;
use crate::tensor::TensorInfo;

use super::limit::Limit;
use super::owner::Owner;
use super::view::UnitView;

/// What each tensor belongs to, and all limits.
type Parted = (Vec<Owner>, Vec<Limit>);

/// Segments as a scope has them.
pub(super) fn part(tensors: &[TensorInfo], scope: Scope) -> Result<Parted, ClipError> {
    match scope {
        Scope::Global => Ok(whole(tensors)),
        Scope::Group => Ok(groups(tensors)),
        Scope::Tensor => Ok(each(tensors)),
        Scope::Unit(units) => unit_by_unit(tensors, units),
        Scope::Row => row_by_row(tensors),
    }
}

/// The error of a tensor that is not as a clip needs it.
pub(super) fn wrong(tensor: &TensorInfo, required: impl Into<String>, given: impl Into<String>) -> ClipError {
    ClipError::Tensor { tensor: tensor.name.to_string(), required: required.into(), given: given.into() }
}

/// Excluded groups as segments of their own, in the order in which they are met, from segment `first` on.
fn excluded_groups(tensors: &[TensorInfo], first: u32) -> (Vec<Option<Owner>>, Vec<Limit>) {
    let mut limits: Vec<Limit> = Vec::new();
    let mut number: HashMap<&str, usize> = HashMap::new();
    let owners = tensors.iter().map(|t| {
        let group = t.group.as_ref().filter(|g| g.threshold.is_none())?;
        let i = *number.entry(&group.name).or_insert_with(|| {
            let segment = first + limits.len() as u32;
            limits.push(Limit { name: Some(group.name.clone()), elements: 0, ..Limit::of(t, segment) });
            limits.len() - 1
        });
        limits[i].elements = limits[i].elements.saturating_add(t.elements);
        Some(Owner::One(limits[i].first))
    });
    (owners.collect(), limits)
}

/// A global segment exists even without tensors: the norm of nothing is 0.
fn whole(tensors: &[TensorInfo]) -> Parted {
    let limited = tensors.iter().filter(|t| !t.excluded());
    let elements = limited.fold(0u64, |sum, t| sum.saturating_add(t.elements));
    let (owners, excluded) = excluded_groups(tensors, 1);
    let owners = owners.into_iter().map(|o| o.unwrap_or(Owner::One(0))).collect();
    (owners, std::iter::once(Limit::new(0, 1, elements)).chain(excluded).collect())
}

fn each(tensors: &[TensorInfo]) -> Parted {
    let numbered = || tensors.iter().zip(0u32..);
    (numbered().map(|(_, i)| Owner::One(i)).collect(), numbered().map(|(t, i)| Limit::of(t, i)).collect())
}

/// Groups in the order in which they are met.
fn groups(tensors: &[TensorInfo]) -> Parted {
    let mut limits: Vec<Limit> = Vec::new();
    let mut number: HashMap<Option<&str>, usize> = HashMap::new();
    let mut owners = Vec::with_capacity(tensors.len());
    for t in tensors {
        let name = t.group.as_ref().map(|g| &g.name);
        let i = *number.entry(name.map(|n| &**n)).or_insert_with(|| {
            limits.push(Limit { name: name.cloned(), elements: 0, ..Limit::of(t, limits.len() as u32) });
            limits.len() - 1
        });
        limits[i].elements = limits[i].elements.saturating_add(t.elements);
        owners.push(Owner::One(i as u32));
    }
    (owners, limits)
}

fn shape_of(t: &TensorInfo) -> Result<&[u64], ClipError> {
    let Some(shape) = t.shape.as_deref() else {
        return Err(wrong(t, "a shape, for units and rows", "none"));
    };
    let product = shape.iter().try_fold(1u64, |product, &n| product.checked_mul(n));
    if product != Some(t.elements) {
        return Err(wrong(t, format!("a shape of {} elements", t.elements), format!("{shape:?}")));
    }
    // Positions in a tensor are words on the GPU.
    if t.elements > u64::from(u32::MAX) {
        return Err(wrong(t, "fewer than 2^32 elements, for units and rows", t.elements.to_string()));
    }
    Ok(shape)
}

fn unit_by_unit(tensors: &[TensorInfo], units: Units) -> Result<Parted, ClipError> {
    let (mut owners, mut limits) = (Vec::new(), Vec::new());
    let mut first = 0u32;
    for t in tensors {
        let count = if t.excluded() {
            owners.push(Owner::One(first));
            limits.push(Limit::of(t, first));
            1
        } else {
            let shape = shape_of(t)?;
            let view = UnitView::of(shape, units)
                .map_err(|required| wrong(t, required, format!("shape {shape:?}")))?;
            let count = if t.elements == 0 { 0 } else { view.units as u32 };
            owners.push(Owner::Units { first, view: UnitView { units: count.into(), ..view } });
            limits.push(Limit { segments: count, elements: view.len, ..Limit::of(t, first) });
            count
        };
        first = first.checked_add(count).ok_or_else(|| wrong(t, "fewer than 2^32 units in all", "more"))?;
    }
    Ok((owners, limits))
}

fn row_by_row(tensors: &[TensorInfo]) -> Result<Parted, ClipError> {
    let (excluded, mut limits) = excluded_groups(tensors, 0);
    let first = limits.len() as u32;
    let mut owners = Vec::with_capacity(tensors.len());
    let mut elements = 0;
    let mut rows = None;
    for (t, excluded) in tensors.iter().zip(excluded) {
        if let Some(owner) = excluded {
            owners.push(owner);
            continue;
        }
        let shape = shape_of(t)?;
        let given = shape.first().copied();
        let required = *rows.get_or_insert(given.unwrap_or(0));
        if given != Some(required) {
            return Err(wrong(
                t,
                format!("{required} rows, as the first tensor has"),
                format!("shape {shape:?}"),
            ));
        }
        let len = t.elements.checked_div(required).unwrap_or(0);
        let view = UnitView::new(&[required, len], |axis| axis == 1);
        // Two axes never alternate more than four times.
        owners
            .extend(view.map(|view| Owner::Units { first, view: UnitView { units: required, len, ..view } }));
        elements += len;
    }
    limits.push(Limit::new(first, rows.unwrap_or(0) as u32, elements));
    Ok((owners, limits))
}
