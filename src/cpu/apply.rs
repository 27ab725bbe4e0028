//! outcome -> gradients, in place: the twin of `shaders/apply.wgsl`.

use crate::layout::{FILL, KEEP, Outcome, SANITIZE};

use super::element::Element;

/// Applies an outcome to the elements of one chunk.
pub(crate) fn apply<T: Element>(elements: &mut [T], outcome: &Outcome) {
    let Outcome { action, scale, rescale, .. } = *outcome;
    // A product of 24-bit mantissas is exact in f64 and so is the power of two: one rounding.
    let factor = f64::from(rescale) * f64::from(rescale);
    let rescaled = |value: f32| (f64::from(value) * f64::from(scale) * factor) as f32;
    match action {
        KEEP => {}
        FILL => elements.fill(T::from_f32(scale)),
        SANITIZE => each(elements, |v| if v.is_finite() { rescaled(v) } else { 0.0 }),
        _ if rescale == 1.0 => each(elements, |v| v * scale),
        _ => each(elements, rescaled),
    }
}

#[inline(always)]
fn each<T: Element>(elements: &mut [T], f: impl Fn(f32) -> f32) {
    elements.iter_mut().for_each(|e| *e = T::from_f32(f(f32::from_bits(e.f32_bits()))));
}
