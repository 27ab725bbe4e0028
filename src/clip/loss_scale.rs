//! Dynamic loss scaling.

use crate::error::ClipError;
use crate::layout::{Hyper, Progress, SCALES_LOSS};

/// Dynamic loss scaling (Micikevicius et al. 2018, arXiv 1710.03740), as `torch.amp.GradScaler` does
/// it: the loss is multiplied by a scale so that 16-bit gradients do not underflow, gradients are
/// divided by it before anything else, and the scale follows what they were. A step with a non-finite
/// gradient multiplies it by `backoff`; after `interval` finite steps in a row it is multiplied by
/// `growth`.
///
/// The scale lives on the device, in [`Pass::progress`](crate::Pass::progress): the forward pass binds
/// that buffer, and the host never reads it.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct LossScale {
    /// Scale of the first step, 65,536 unless set.
    pub initial: f32,
    /// Factor after `interval` finite steps, 2 unless set. The scale never exceeds 2^126.
    pub growth: f32,
    /// Factor after a step that was not finite, 0.5 unless set. The scale never falls below 2^-126.
    pub backoff: f32,
    /// Finite steps in a row before the scale grows, 2,000 unless set.
    pub interval: u32,
}

impl Default for LossScale {
    fn default() -> LossScale {
        LossScale { initial: 65_536.0, growth: 2.0, backoff: 0.5, interval: 2000 }
    }
}

/// The largest scale whose reciprocal is a normal `f32`.
pub(crate) const MOST_SCALE: f32 = f32::from_bits((126 + 127) << 23);

impl LossScale {
    /// Sets the scale of the first step.
    #[must_use]
    pub fn initial(self, initial: f32) -> LossScale {
        LossScale { initial, ..self }
    }

    /// Sets the factor after `interval` finite steps.
    #[must_use]
    pub fn growth(self, growth: f32) -> LossScale {
        LossScale { growth, ..self }
    }

    /// Sets the factor after a step that was not finite.
    #[must_use]
    pub fn backoff(self, backoff: f32) -> LossScale {
        LossScale { backoff, ..self }
    }

    /// Sets the number of finite steps before the scale grows.
    #[must_use]
    pub fn interval(self, interval: u32) -> LossScale {
        LossScale { interval, ..self }
    }

    pub(super) fn validate(self) -> Result<(), ClipError> {
        let checks = [
            ("initial scale", "2^-126 to 2^126", self.initial, f32::MIN_POSITIVE..=MOST_SCALE),
            ("growth factor", "1 or more and finite", self.growth, 1.0..=f32::MAX),
            ("back-off factor", "above 0, at most 1", self.backoff, f32::MIN_POSITIVE..=1.0),
            ("growth interval", "1 or more", self.interval as f32, 1.0..=f32::MAX),
        ];
        for (what, required, given, range) in checks {
            if !range.contains(&given) {
                return Err(ClipError::LossScale { what, required, given });
            }
        }
        Ok(())
    }

    /// The constants that the kernels use, along with those of an optimiser.
    pub(crate) fn add_to(scale: Option<LossScale>, hyper: Hyper) -> Hyper {
        let Some(LossScale { growth, backoff, interval, .. }) = scale else { return hyper };
        Hyper { growth, backoff, interval, flags: hyper.flags | SCALES_LOSS, ..hyper }
    }

    /// Before the first step.
    pub(crate) fn begin(scale: Option<LossScale>) -> Progress {
        let scale = scale.map_or(1.0, |s| s.initial);
        Progress {
            scale,
            unscale: 1.0 / scale,
            finite_steps: 0,
            updates: 0,
            moves: 0,
            share: 0.0,
            correction: 1.0,
            second_correction: 1.0,
            skips: 0,
            mean_correction: 1.0,
            momentum_product: 1.0,
            gradient_correction: 1.0,
            reasons: 0,
            strikes: 0,
            spikes: 0,
            watched: 0,
        }
    }
}
