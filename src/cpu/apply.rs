//! outcome -> gradients, in place: the twin of `shaders/apply.wgsl` and `shaders/apply_units.wgsl`.

use crate::layout::{CLAMP, FILL, KEEP, Outcome, SANITIZE, SIGN};
use crate::segments::UnitView;

use super::element::Element;

/// Elements that are converted at once, at most and at least.
const BLOCK: usize = 128;
const FEW: usize = 16;

/// Applies an outcome to neighbouring elements.
pub(crate) fn apply<T: Element>(elements: &mut [T], outcome: &Outcome) {
    let Outcome { action, scale, rescale, unscale, .. } = *outcome;
    // A product of 24-bit mantissas is exact in f64 and so is the power of two: one rounding.
    let factor = f64::from(rescale) * f64::from(rescale);
    let rescaled = |value: f32| (f64::from(value) * f64::from(scale) * factor) as f32;
    // What is not finite becomes 0 where that is asked for, and never comes elsewhere.
    let finite = |value: f32, then: f32| if value.is_finite() { then } else { 0.0 };
    let sanitize = action & SANITIZE != 0;
    match action & !SANITIZE {
        KEEP => {}
        FILL => elements.fill(T::from_f32(scale)),
        SIGN if sanitize => each(elements, |v| finite(v, signed(v, scale))),
        SIGN => each(elements, |v| signed(v, scale)),
        CLAMP if sanitize => each(elements, |v| finite(v, clamped(v * unscale, scale))),
        CLAMP => each(elements, |v| clamped(v * unscale, scale)),
        _ if sanitize => each(elements, |v| finite(v, rescaled(v))),
        _ if rescale == 1.0 => each(elements, |v| v * scale),
        _ => each(elements, rescaled),
    }
}

#[inline(always)]
fn each<T: Element>(elements: &mut [T], f: impl Fn(f32) -> f32) {
    if !T::BY_SLICES || elements.len() < FEW {
        return elements.iter_mut().for_each(|e| *e = T::from_f32(f(f32::from_bits(e.f32_bits()))));
    }
    let mut block = [0.0; BLOCK];
    for own in elements.chunks_mut(BLOCK) {
        let block = &mut block[..own.len()];
        T::widen(own, block);
        block.iter_mut().for_each(|v| *v = f(*v));
        T::narrow(block, own);
    }
}

#[inline(always)]
fn signed(value: f32, magnitude: f32) -> f32 {
    if value == 0.0 { value } else { magnitude.copysign(value) }
}

/// NaN stays.
#[inline(always)]
fn clamped(value: f32, most: f32) -> f32 {
    if value.abs() > most { most.copysign(value) } else { value }
}

/// Applies to each element, the first of them element `first` of its tensor, the outcome of its unit.
pub(crate) fn apply_units<T: Element>(elements: &mut [T], first: u64, view: &UnitView, outcomes: &[Outcome]) {
    // The longest run whose elements surely belong to the same unit.
    let run = view.kept.low.stride.max(1);
    let mut done = 0;
    while done < elements.len() {
        let e = first + done as u64;
        let until = ((e / run + 1) * run - e).min((elements.len() - done) as u64) as usize;
        apply(&mut elements[done..done + until], &outcomes[view.unit_of(e) as usize]);
        done += until;
    }
}
