//! What optimisers do with an element: results of what is finite stay finite, as in `shaders/shared/finite.wgsl` and `update.wgsl`.

/// The largest `f32` instead of infinity, where it came of what is finite.
#[inline(always)]
pub(in crate::cpu) fn within(value: f32, finite: bool) -> f32 {
    if finite & (value.abs() > f32::MAX) { f32::MAX.copysign(value) } else { value }
}

/// 0 / 0 is 0: nothing has ever moved this element.
#[inline(always)]
pub(in crate::cpu) fn quotient(corrected: f32, size: f32, still: bool, finite: bool) -> f32 {
    if still { 0.0 } else { within(corrected / size, finite) }
}

/// A step. What does not move keeps every bit: -0 would lose its sign.
#[inline(always)]
pub(super) fn moved(parameter: f32, by: f32, finite: bool) -> f32 {
    if by == 0.0 { parameter } else { within(parameter - by, finite) }
}

/// The direction with the decay of the parameter. One of 0 changes nothing, not even where the parameter is not finite.
#[inline(always)]
pub(in crate::cpu) fn decayed(direction: f32, parameter: f32, decay: f32, finite: bool) -> f32 {
    if decay == 0.0 { direction } else { within(direction + decay * parameter, finite) }
}

/// A penalty of 0 changes nothing, not even where the parameter is not finite.
#[inline(always)]
pub(in crate::cpu) fn penalised(gradient: f32, parameter: f32, penalty: f32, finite: bool) -> f32 {
    if penalty == 0.0 { gradient } else { within(gradient + penalty * parameter, finite) }
}
