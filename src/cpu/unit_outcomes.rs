//! What becomes of units of which nobody asks anything else.

use crate::clip::Summation;
use crate::combine::NOTHING;
use crate::layout::{CLIPPED, KEEP, MULTIPLY, Outcome, Setting, TOWARD_ZERO};

use super::coefficient::{Decider, Quick};
use super::unit_sums::Units;

/// Decides about units by their partials: in floating point where that surely tells what integers do, which else decide.
pub(super) struct UnitDecider<'a> {
    decider: Decider<'a>,
    /// What magnitudes or squares add up to at most where the norm is surely not over the limit.
    bound: f64,
    /// What becomes of those: of a norm of 0.
    kept: Outcome,
    quick: Option<Quick>,
    multiply: u32,
}

impl<'a> UnitDecider<'a> {
    pub(super) fn new(setting: &'a Setting, summation: Summation) -> UnitDecider<'a> {
        let decider = Decider::new(setting, summation);
        UnitDecider {
            bound: decider.surely_kept(),
            kept: decider.decide(&NOTHING, &NOTHING),
            quick: decider.quick(),
            multiply: MULTIPLY | if setting.below == 1 { TOWARD_ZERO } else { 0 },
            decider,
        }
    }

    /// What applies it needs, and counters: norm and coefficient may be those of a norm of 0.
    #[inline]
    pub(super) fn decide(&self, units: &Units<'_>, unit: usize) -> Outcome {
        let Some(sum) = units.about(unit) else { return self.in_integers(units, unit) };
        if sum <= self.bound {
            return self.kept;
        }
        match self.quick.and_then(|quick| quick.scale(sum)) {
            Some(scale) => {
                let action = if scale == 1.0 { KEEP } else { self.multiply };
                Outcome { scale, rescale: 1.0, action, flags: CLIPPED, ..self.kept }
            }
            None => self.in_integers(units, unit),
        }
    }

    #[cold]
    #[inline(never)]
    fn in_integers(&self, units: &Units<'_>, unit: usize) -> Outcome {
        self.decider.decide(&units.sum(unit), &NOTHING)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clip::{Clip, Scope};
    use crate::cpu::random::words;
    use crate::cpu::sources::Source;
    use crate::layout::Partial;
    use crate::segments::Segments;
    use crate::tensor::{DType, TensorInfo};

    fn setting_of(clip: &Clip) -> Setting {
        let info = TensorInfo {
            name: "g".into(),
            dtype: DType::F32,
            elements: 4,
            shape: Some([2, 2].into()),
            group: None,
            has_parameter: false,
        };
        let parts = Segments::new(&[info], clip).unwrap();
        parts.settings(clip, &parts.thresholds(clip))[0]
    }

    /// What applies an outcome, and what counts it.
    fn used(out: &Outcome) -> (u32, u32, u32, u32, u32) {
        (out.scale.to_bits(), out.rescale.to_bits(), out.action, out.flags, out.non_finite)
    }

    /// Factors in floating point are those in integers, of sums of any size, next to the limit and where roots and quotients
    /// lie next to what rounds otherwise; and most are found without integers.
    #[test]
    fn quick_factors_are_those_of_integers() {
        let mut word = words(5);
        let (mut quick, mut all) = (0u32, 0u32);
        for norm in [crate::NormType::One, crate::NormType::Two] {
            for (threshold, unscale) in
                [(1.0, 1.0), (0.3, 1.0), (1e-5, 0.75), (7e3, 2f64.powi(-16)), (1e30, 1.1), (3e-20, 65536.0)]
            {
                for (below, eps) in [(true, 0.0), (false, 0.0), (false, 1e-6), (true, 1e-6)] {
                    let clip = Clip::global_norm(threshold).scope(Scope::Row).norm_type(norm);
                    let clip = clip.unscale(unscale).never_above(below).eps(eps);
                    let setting = setting_of(&clip);
                    let decider = UnitDecider::new(&setting, norm.into());
                    let sources =
                        [0, 1].map(|number| Source { number, elements: 1, partials: number..number + 1 });
                    let center = 127 + (threshold / unscale).log2() as i32;
                    for _ in 0..30_000 {
                        let shape = word();
                        let partials = [(); 2].map(|()| {
                            let square = norm == crate::NormType::Two;
                            // Squares and neighbours of them, or anything.
                            let root = u64::from(word() >> (8 - (shape & 7)) | 1 << 23) & 0xff_ffff;
                            let near = (root * root).wrapping_add(u64::from(shape >> 8 & 3)) - 1;
                            let any =
                                (u64::from(word()) << 32 | u64::from(word())) >> (2 + (shape >> 4 & 15));
                            let sum = if shape & 8 == 0 && square { near } else { any | 1 << 47 };
                            let exponent = (center + (word() % 12) as i32 - 4).clamp(1, 254) as u32;
                            Partial { lo: sum as u32, hi: (sum >> 32) as u32, exponent, non_finite: 0 }
                        });
                        let count = if shape & 16 == 0 { 1 } else { 2 };
                        let units = Units::of_rows((&sources[..count], 1), &partials, 2, norm.into());
                        let expected = decider.decider.decide(&units.sum(0), &NOTHING);
                        let found = decider.decide(&units, 0);
                        assert_eq!(used(&found), used(&expected), "{clip:?} {partials:?}");
                        let over = expected.flags & CLIPPED != 0 && (!below || eps == 0.0);
                        let sum = units.about(0).unwrap();
                        all += u32::from(over);
                        quick += u32::from(over && decider.quick.is_some_and(|q| q.scale(sum).is_some()));
                    }
                }
            }
        }
        assert!(all > 100_000 && quick > all / 4 * 3, "{quick} of {all}");
    }
}
