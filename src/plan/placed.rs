//! Tensors with what they belong to, and the order of their partials.

use std::borrow::Cow;
use std::ops::Range;

use crate::layout::CHUNK;
use crate::segments::{Owner, Segments};
use crate::tensor::TensorInfo;

use super::placement::Placement;

/// A tensor or its parameters, with the segments it belongs to and its partials.
pub(crate) struct Placed<'a> {
    pub(crate) at: &'a Placement,
    pub(crate) owner: Owner,
    /// Parameters are only measured.
    pub(crate) measured: bool,
    pub(crate) first_partial: u32,
    pub(crate) partials: u32,
}

impl<'a> Placed<'a> {
    /// All tensors, then all parameters.
    pub(super) fn all(tensors: &'a [Placement], parts: &Segments, infos: &[TensorInfo]) -> Vec<Placed<'a>> {
        let shift = parts.decided();
        let grads = tensors.iter().zip(&parts.owners).map(|(at, &owner)| (at, owner, false));
        let parameters = tensors
            .iter()
            .zip(&parts.owners)
            .filter(|_| parts.parameters)
            .filter_map(|(t, owner)| Some((t.parameter.as_deref()?, owner.shifted(shift), true)));
        let mut placed: Vec<Placed<'_>> = grads
            .chain(parameters)
            .map(|(at, owner, measured)| {
                // Checked against the limits before anything is made of them.
                let partials = chunks(at.elements, owner).min(u64::from(u32::MAX)) as u32;
                Placed { at, owner, measured, first_partial: 0, partials }
            })
            .collect();
        let mut first_partial = 0u32;
        for i in order_of_partials(infos, placed.len()) {
            placed[i].first_partial = first_partial;
            first_partial = first_partial.saturating_add(placed[i].partials);
        }
        placed
    }
}

/// The order in which the partials of all tensors, and then of all parameters, are numbered: excluded ones
/// last, so that those of a row over several tensors lie at equal distances.
pub(crate) fn order_of_partials(infos: &[TensorInfo], sources: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..sources).collect();
    let tensors = infos.len().max(1);
    order.sort_by_key(|&source| (source / tensors, infos[source % tensors].excluded()));
    order
}

/// What is measured, in the order of partials: its number among tensors and their parameters, its elements and its partials. Parameters
/// of excluded tensors are not read.
pub(crate) fn partials_in_order(
    infos: &[TensorInfo],
    parts: &Segments,
) -> impl Iterator<Item = (usize, u64, Range<usize>)> {
    let mut first = 0;
    order_of_partials(infos, parts.sums()).into_iter().map(move |number| {
        let elements = match number.checked_sub(infos.len()) {
            Some(i) if infos[i].excluded() => 0,
            _ => infos[number % infos.len()].elements,
        };
        let partials = first..first + chunks(elements, parts.owner_of(number)) as usize;
        first = partials.end;
        (number, elements, partials)
    })
}

/// No limit of an excluded tensor follows from its parameter, which therefore is not read.
pub(super) fn without_excluded_parameters<'a>(
    tensors: &'a [Placement],
    parts: &Segments,
    infos: &[TensorInfo],
) -> Cow<'a, [Placement]> {
    if !parts.parameters || !infos.iter().any(TensorInfo::excluded) {
        return Cow::Borrowed(tensors);
    }
    let without = |(t, info): (&Placement, &TensorInfo)| match info.excluded() {
        true => {
            let nothing = Placement { elements: 0, parameter: None, ..t.clone() };
            Placement { parameter: Some(Box::new(nothing)), ..t.clone() }
        }
        false => t.clone(),
    };
    tensors.iter().zip(infos).map(without).collect::<Vec<_>>().into()
}

/// Chunks of a tensor.
pub(crate) fn chunks(elements: u64, owner: Owner) -> u64 {
    match owner {
        Owner::One(_) => elements.div_ceil(u64::from(CHUNK)),
        Owner::Units { view, .. } => view.units.saturating_mul(view.chunks()),
    }
}
