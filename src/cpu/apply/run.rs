//! One outcome to neighbouring elements.

use crate::cpu::element::Element;
use crate::cpu::lanes::{LANES, toward_zero};
use crate::layout::{CLAMP, FILL, KEEP, MULTIPLY, Outcome, SANITIZE, SIGN, TOWARD_ZERO};

use super::product;

/// Elements that are converted at once, at most and at least.
const BLOCK: usize = 128;
const FEW: usize = 16;

/// Applies an outcome to neighbouring elements. What is finite stays finite: results are at most the
/// largest finite element.
pub(crate) fn apply<T: Element>(elements: &mut [T], outcome: &Outcome) {
    let Outcome { action, scale, rescale, unscale, .. } = *outcome;
    // A product of 24-bit mantissas is exact in f64 and so is the power of two: one rounding.
    let factor = f64::from(rescale) * f64::from(rescale);
    let product = |value: f32| f64::from(value) * f64::from(scale) * factor;
    let rescaled = |value: f32| product(value) as f32;
    // What is not finite, or not when it is unscaled, becomes 0 where that is asked for.
    let finite = |value: f32, then: f32| if (value * unscale).is_finite() { then } else { 0.0 };
    let sanitize = action & SANITIZE != 0;
    if action == MULTIPLY | TOWARD_ZERO && rescale == 1.0 && elements.len() >= LANES {
        return product::multiply(elements, scale, true);
    }
    if action & TOWARD_ZERO != 0 {
        let keep = |value: f32| !sanitize || (value * unscale).is_finite();
        return elements.iter_mut().for_each(|e| {
            let value = f32::from_bits(e.f32_bits());
            *e = T::toward_zero(if keep(value) { toward_zero(product(value)) } else { 0.0 });
        });
    }
    // The limit of a value clip as an element: every element within it is at most this.
    let limit = || f32::from_bits(T::toward_zero(scale).f32_bits());
    match action & !SANITIZE {
        KEEP => {}
        FILL => elements.fill(T::from_f32(scale)),
        SIGN if sanitize => each(elements, |v| finite(v, signed(v, scale))),
        SIGN => each(elements, |v| signed(v, scale)),
        CLAMP if sanitize => {
            let limit = limit();
            each(elements, |v| finite(v, clamped(v * unscale, limit)));
        }
        CLAMP => {
            let limit = limit();
            // A product would make a signalling NaN quiet.
            let unscaled = |v: f32| if v.is_finite() { saturated(v, v * unscale) } else { v };
            each(elements, |v| clamped(unscaled(v), limit));
        }
        _ if sanitize => each(elements, |v| finite(v, saturated(v, rescaled(v)))),
        // No product of such a factor is larger than its element.
        _ if rescale == 1.0 && scale <= 1.0 && elements.len() < LANES => each(elements, |v| v * scale),
        _ if rescale == 1.0 && scale <= 1.0 => product::multiply(elements, scale, false),
        _ => each(elements, |v| saturated(v, rescaled(v))),
    }
}

/// Each element as `f` leaves its value, at most the largest of its type.
#[inline(always)]
fn each<T: Element>(elements: &mut [T], f: impl Fn(f32) -> f32) {
    // An infinity stays one.
    let narrower = T::LARGEST < f32::MAX;
    let within = |v: f32| if narrower && v.is_finite() { v.clamp(-T::LARGEST, T::LARGEST) } else { v };
    if !T::BY_SLICES || elements.len() < FEW {
        return elements.iter_mut().for_each(|e| *e = T::from_f32(within(f(f32::from_bits(e.f32_bits())))));
    }
    let mut block = [0.0; BLOCK];
    for own in elements.chunks_mut(BLOCK) {
        let block = &mut block[..own.len()];
        T::widen(own, block);
        block.iter_mut().for_each(|v| *v = within(f(*v)));
        T::narrow(block, own);
    }
}

/// The result, or the largest `f32` where a finite value became infinite.
#[inline(always)]
fn saturated(value: f32, result: f32) -> f32 {
    if result.is_infinite() && value.is_finite() { f32::MAX.copysign(result) } else { result }
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
