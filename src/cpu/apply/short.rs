//! Units whose runs are short, multiplied many at once.

use crate::cpu::element::Element;
use crate::cpu::lanes::LANES;
use crate::layout::{KEEP, MULTIPLY, Outcome, TOWARD_ZERO};
use crate::segments::UnitView;

use super::product::multiply;
use super::run::apply;

/// Elements whose factors are written side by side, then multiplied.
const BLOCK: usize = 512;
/// Runs of one unit from this length on are multiplied by themselves.
pub(super) const LONG: u64 = 64;

/// Applies the outcomes of units whose runs are short: where all are mere products, to many at once.
pub(super) fn apply_short<T: Element>(elements: &mut [T], first: u64, view: &UnitView, outcomes: &[Outcome]) {
    let mut factors = [[0u32; LANES]; BLOCK / LANES + 1];
    let mut from = first;
    for block in elements.chunks_mut(BLOCK) {
        match common_action(view, (from, block.len()), outcomes, factors.as_flattened_mut()) {
            Some(KEEP) => {}
            Some(action) => multiply(block, &factors[..], action & TOWARD_ZERO != 0),
            None => {
                view.runs(from, block.len()).for_each(|(run, unit)| apply(&mut block[run], &outcomes[unit]))
            }
        }
        from += block.len() as u64;
    }
}

/// The factor of each element, and the action of all whose factor is not 1, where they have one and it is a product at most as
/// large as its element. A line more than there are elements may be written.
#[inline]
fn common_action(
    view: &UnitView,
    (first, len): (u64, usize),
    outcomes: &[Outcome],
    factors: &mut [u32],
) -> Option<u32> {
    let mut common = KEEP;
    for (run, unit) in view.runs(first, len) {
        let Outcome { action, scale, rescale, non_finite, .. } = outcomes[unit];
        let product = (action == KEEP || action & !TOWARD_ZERO == MULTIPLY) && rescale == 1.0 && scale <= 1.0;
        // A product with 1 would make a signalling NaN quiet.
        if !product || non_finite != 0 || (action != KEEP && common != KEEP && action != common) {
            return None;
        }
        common |= action;
        let factor = if action == KEEP { 1.0 } else { scale };
        // What is written beyond the run belongs to the next.
        for at in run.step_by(LANES) {
            factors[at..at + LANES].copy_from_slice(&[factor.to_bits(); LANES]);
        }
    }
    Some(common)
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;
    use half::{bf16, f16};

    use super::*;
    use crate::cpu::random::words;
    use crate::layout::FILL;

    /// Of an exact product, the largest element not above it in magnitude, found by trying neighbours, or the nearest one.
    fn expected<T: Element>(value: f32, outcome: &Outcome, neighbour: impl Fn(T) -> T) -> T {
        match outcome.action {
            KEEP => T::from_f32(value),
            FILL => T::from_f32(outcome.scale),
            MULTIPLY => T::from_f32(value * outcome.scale),
            _ => {
                let exact = f64::from(value) * f64::from(outcome.scale);
                let near = T::from_f32(exact as f32);
                let above = f64::from(f32::from_bits(near.f32_bits())).abs() > exact.abs();
                if above { neighbour(near) } else { near }
            }
        }
    }

    fn equals_each_element<T: Element>(neighbour: impl Fn(T) -> T + Copy) {
        let mut next = words(11);
        let shapes = [[900, 1], [400, 3], [70, 25], [50, 45], [40, 63]];
        for (shape, over) in shapes.iter().flat_map(|shape| [(shape, 1), (shape, 0)]) {
            let view = UnitView::of(shape, crate::clip::Units::over(&[over])).unwrap();
            for actions in
                [&[MULTIPLY, KEEP][..], &[MULTIPLY | TOWARD_ZERO, KEEP], &[MULTIPLY, KEEP, FILL], &[KEEP]]
            {
                let outcomes: Vec<Outcome> = (0..view.units)
                    .map(|_| {
                        let action = actions[next() as usize % actions.len()];
                        let scale = if action == KEEP { 1.0 } else { next() as f32 / 4_294_967_296.0 };
                        Outcome { action, scale, rescale: 1.0, unscale: 1.0, ..Outcome::zeroed() }
                    })
                    .collect();
                let values: Vec<f32> = (0..shape[0] * shape[1])
                    .map(|_| (next() as f32 - 2e9) / 2f32.powi(30 + next() as i32 % 30))
                    .collect();
                let given: Vec<T> = values.iter().map(|&v| T::from_f32(v)).collect();
                // From the middle of a unit on, as a chunk may begin.
                for first in [0, 7] {
                    let mut clipped = given[first..].to_vec();
                    super::super::apply_units(&mut clipped, first as u64, &view, &outcomes);
                    for (i, (&old, new)) in given[first..].iter().zip(&clipped).enumerate() {
                        let outcome = &outcomes[view.unit_of((first + i) as u64) as usize];
                        let expected = expected(f32::from_bits(old.f32_bits()), outcome, neighbour);
                        assert_eq!(
                            new.f32_bits(),
                            expected.f32_bits(),
                            "{shape:?} over {over}, {i}: {outcome:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn short_runs_are_multiplied_as_each_element() {
        equals_each_element(|v: f32| f32::from_bits(v.to_bits() - 1));
        equals_each_element(|v: f16| f16::from_bits(v.to_bits() - 1));
        equals_each_element(|v: bf16| bf16::from_bits(v.to_bits() - 1));
    }

    /// A unit that is kept keeps the bits of NaN elements, next to units that are multiplied.
    #[test]
    fn what_is_kept_keeps_its_bits() {
        let signalling = f32::from_bits(0x7f80_0001);
        let view = UnitView::of(&[2, 2], crate::clip::Units::over(&[1])).unwrap();
        let outcome = |action, scale, non_finite| Outcome {
            action,
            scale,
            non_finite,
            rescale: 1.0,
            unscale: 1.0,
            ..Outcome::zeroed()
        };
        let mut elements = [signalling, 3.0, 3.0, 5.0];
        let outcomes = [outcome(KEEP, 1.0, 1), outcome(MULTIPLY, 0.5, 0)];
        super::super::apply_units(&mut elements, 0, &view, &outcomes);
        assert_eq!(elements.map(f32::to_bits), [signalling, 3.0, 1.5, 2.5].map(f32::to_bits));
    }
}
