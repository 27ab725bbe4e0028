//! The constants of one tensor in one step, and what follows from them alone.

use crate::cpu::parameter::Chance;
use crate::layout::{DECOUPLED, EPS_HAT, Hyper, MAXIMIZE, Progress};

use super::arithmetic::within;

/// The constants of one tensor in one step.
#[derive(Clone, Copy, Debug)]
pub(in crate::cpu) struct Rates {
    pub(in crate::cpu) hyper: Hyper,
    pub(super) share: f32,
    pub(super) correction: f32,
    pub(super) second_correction: f32,
    pub(super) gradient_correction: f32,
    pub(super) lr: f32,
    pub(in crate::cpu) weight_decay: f32,
    /// What its update is multiplied by.
    pub(in crate::cpu) ratio: f32,
    pub(super) chance: Chance,
}

impl Rates {
    /// `seed` is that of what is rounded by chance.
    pub(in crate::cpu) fn new(
        hyper: &Hyper,
        progress: &Progress,
        (lr_scale, weight_decay): (f32, f32),
        seed: u64,
    ) -> Rates {
        Rates {
            hyper: *hyper,
            share: progress.share,
            correction: progress.correction,
            second_correction: progress.second_correction,
            gradient_correction: progress.gradient_correction,
            lr: hyper.lr * lr_scale,
            weight_decay,
            ratio: 1.0,
            chance: Chance { seed, step: progress.updates },
        }
    }

    /// The same for rows of a table: eps before the second moment is corrected, as SparseAdam has it.
    pub(in crate::cpu) fn by_rows(self) -> Rates {
        let hyper = Hyper { flags: self.hyper.flags | EPS_HAT, ..self.hyper };
        Rates { hyper, ..self }
    }

    /// Weight decay as a part of the gradient.
    pub(in crate::cpu) fn penalty(&self) -> f32 {
        if self.hyper.flags & DECOUPLED == 0 { self.weight_decay } else { 0.0 }
    }

    /// Weight decay as a part of the direction.
    pub(in crate::cpu) fn decay(&self) -> f32 {
        if self.hyper.flags & DECOUPLED != 0 { self.weight_decay } else { 0.0 }
    }

    /// The factor of a gradient: -1 where the step goes up.
    pub(in crate::cpu) fn sign(&self) -> f32 {
        if self.hyper.flags & MAXIMIZE != 0 { -1.0 } else { 1.0 }
    }

    /// What is added to the root of a corrected second moment.
    pub(in crate::cpu) fn eps(&self) -> f32 {
        let Hyper { eps, flags, .. } = self.hyper;
        if flags & EPS_HAT != 0 { eps * self.second_correction } else { eps }
    }

    /// The moments that a gradient leaves.
    #[inline(always)]
    pub(in crate::cpu) fn moments(&self, [m, v]: [f32; 2], g: f32, finite: bool) -> [f32; 2] {
        let Hyper { decay, second_decay, second_share, .. } = self.hyper;
        [within(decay * m + self.share * g, finite), within(second_decay * v + second_share * g * g, finite)]
    }

    /// The root of a second moment, corrected.
    #[inline(always)]
    pub(in crate::cpu) fn root(&self, second: f32) -> f32 {
        second.sqrt() * self.second_correction
    }

    /// A first moment, corrected.
    #[inline(always)]
    pub(in crate::cpu) fn corrected(&self, first: f32, finite: bool) -> f32 {
        within(first * self.correction, finite)
    }

    /// Steps since SPAM last forgot moments, or since the first step; whether it does so in this one, and whether it limits elements.
    pub(super) fn spam(&self) -> (bool, bool) {
        let Hyper { limit, reset_interval, limit_delay, .. } = self.hyper;
        let t = self.chance.step;
        let since = if reset_interval == 0 { t } else { t % reset_interval };
        (reset_interval != 0 && since == 0, limit < f32::INFINITY && t.min(since) >= limit_delay)
    }
}
