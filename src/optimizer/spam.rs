//! SPAM.

use crate::error::OptimizerError;
use crate::layout::{ADAM, DECOUPLED, EPS_HAT, Hyper, MAXIMIZE, SPAM, STEPS};

use super::constants::{at_least_0, betas_below_1, flag, of_betas, setters};

/// SPAM (Huang et al. 2025, arXiv 2501.06842) as its authors' program defines it: Adam whose gradient is limited, element by element, by
/// the second moment before it, and which forgets its moments at intervals. With the clipped gradient g, parameter p, moments m and v, in
/// step t counted from 1:
///
/// ```text
/// t mod interval = 0:  m ← 0, v ← 0
/// g ← sign(g) · √(threshold · v)  where g² > threshold · v,  not before t and t mod interval are `delay`
/// m ← β₁ m + (1 − β₁) g
/// v ← β₂ v + (1 − β₂) g²
/// p ← p − lr · (s · (m / (1 − β₁ᵗ)) · √(1 − β₂ᵗ) / (√v + eps) + weight_decay · p)
/// ```
///
/// s rises along a cosine from 0.01 to 1: 1 − 0.99 · (1 + cos(π k / (warmup + 1))) / 2 in the k-th step after moments were forgotten, counted
/// from 0, and 1 from k = `warmup` on and before they ever were. The authors' program lets moments be averages over a random choice of
/// elements if asked; that is not here, and its decay is of the parameter after the step.
///
/// ```
/// use gradclip::{Optimizer, Spam};
///
/// let spam: Optimizer = Spam::new(1e-3).interval(500).threshold(5000.0).into();
/// assert_eq!(spam.moments(), 2);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Spam {
    /// Learning rate, 0 or more.
    pub lr: f64,
    /// β₁ and β₂, from 0 to below 1. 0.9 and 0.999 unless set.
    pub betas: (f64, f64),
    /// Added to the root of the second moment before that is corrected, 0 or more. 1e-6 unless set.
    pub eps: f64,
    /// Decay of the parameter. 0 unless set.
    pub weight_decay: f64,
    /// How many times its second moment a square may be, 0 or more; infinity limits nothing. 5000 unless set.
    pub threshold: f64,
    /// Steps from one time that moments are forgotten to the next; 0 is never. 500 unless set.
    pub interval: u32,
    /// Steps in which the rate rises after that. 150 unless set.
    pub warmup: u32,
    /// Steps before elements are limited, at first and after moments were forgotten. 20 unless set.
    pub delay: u32,
    /// Whether the step goes up the gradient.
    pub maximize: bool,
}

setters! {
    Spam:
    /// Sets what is added to the root.
    eps: f64,
    /// Sets the decay.
    weight_decay: f64,
    /// Sets how many times its second moment a square may be.
    #[doc(alias = "theta")]
    threshold: f64,
    /// Sets the steps from one time that moments are forgotten to the next.
    #[doc(alias = "DeltaT")]
    interval: u32,
    /// Sets the steps in which the rate rises after that.
    #[doc(alias = "warmup_steps")]
    warmup: u32,
    /// Sets the steps before elements are limited.
    #[doc(alias = "grad_accu_steps")]
    delay: u32,
    /// Sets whether the step goes up the gradient.
    maximize: bool,
}

impl Spam {
    /// SPAM with the constants of its authors' program and no decay.
    pub fn new(lr: f64) -> Spam {
        let (betas, eps, weight_decay) = ((0.9, 0.999), 1e-6, 0.0);
        let (threshold, interval, warmup, delay) = (5000.0, 500, 150, 20);
        Spam { lr, betas, eps, weight_decay, threshold, interval, warmup, delay, maximize: false }
    }

    pub(super) fn validate(&self) -> Result<(), OptimizerError> {
        betas_below_1(self.betas)?;
        at_least_0("eps", self.eps)?;
        if self.threshold >= 0.0 {
            return Ok(());
        }
        let (what, required) = ("threshold of squares", "0 or more");
        Err(OptimizerError::Constant { what, required, given: self.threshold })
    }

    pub(super) fn record(&self) -> Hyper {
        Hyper {
            lr: self.lr as f32,
            eps: self.eps as f32,
            limit: self.threshold as f32,
            reset_interval: self.interval,
            reset_warmup: self.warmup,
            limit_delay: self.delay,
            flags: STEPS | ADAM | SPAM | EPS_HAT | DECOUPLED | flag(self.maximize, MAXIMIZE),
            ..of_betas(self.betas)
        }
    }
}
