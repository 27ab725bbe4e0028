//! outcome -> gradients, in place: the twin of `shaders/apply.wgsl`.

use crate::layout::{FILL, KEEP, Outcome, SANITIZE};

use super::element::Element;

/// Applies an outcome to the elements of one chunk.
pub(crate) fn apply<T: Element>(elements: &mut [T], outcome: &Outcome) {
    let Outcome { scale, rescale, .. } = *outcome;
    let value = |e: T| f32::from_bits(e.f32_bits());
    match outcome.action {
        KEEP => {}
        FILL => elements.fill(T::from_f32(scale)),
        SANITIZE => elements.iter_mut().for_each(|e| {
            let v = value(*e);
            *e = T::from_f32(if v.is_finite() { v * scale * rescale * rescale } else { 0.0 });
        }),
        _ if rescale == 1.0 => elements.iter_mut().for_each(|e| *e = T::from_f32(value(*e) * scale)),
        _ => elements.iter_mut().for_each(|e| *e = T::from_f32(value(*e) * scale * rescale * rescale)),
    }
}
