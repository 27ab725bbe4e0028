//! ADOPT.

use crate::error::OptimizerError;
use crate::layout::{ADOPT, CLIPS_UPDATE, DECOUPLED, Hyper, MAXIMIZE, STEPS};

use super::constants::{at_least_0, betas_below_1, flag, of_betas, setters};

/// ADOPT (Taniguchi et al. 2024, arXiv 2411.02853) as `optax.contrib.adopt` and its authors define it: Adam whose gradient is divided by the
/// second moment of the gradients before it, and whose elements are limited by a bound that grows. With the clipped gradient g,
/// parameter p, moments m and v, in step t counted from 1:
///
/// ```text
/// L2:    g ← g + weight_decay · p
/// t = 1: v ← g², and nothing else
/// u = g / max(√v, eps),  each element within ± (t − 1)^¼
/// m ← β₁ m + (1 − β₁) u
/// p ← p − lr · (m + weight_decay · p where decoupled)
/// v ← β₂ v + (1 − β₂) g²
/// ```
///
/// ```
/// use gradclip::{Adopt, Optimizer};
///
/// let adopt: Optimizer = Adopt::new(1e-3).weight_decay(0.01).decoupled(true).into();
/// assert_eq!(adopt.moments(), 2);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Adopt {
    /// Learning rate, 0 or more.
    pub lr: f64,
    /// β₁ and β₂, from 0 to below 1. 0.9 and 0.9999 unless set.
    pub betas: (f64, f64),
    /// The least that is divided by, 0 or more. 1e-6 unless set.
    pub eps: f64,
    /// L2 penalty, or decay of the parameter. 0 unless set.
    pub weight_decay: f64,
    /// Whether the decay is of the parameter.
    pub decoupled: bool,
    /// Whether elements of u are limited. True unless set.
    pub clipping: bool,
    /// Whether the step goes up the gradient.
    pub maximize: bool,
}

setters! {
    Adopt:
    /// Sets the least that is divided by.
    eps: f64,
    /// Sets the L2 penalty, or the decay.
    weight_decay: f64,
    /// Sets whether the decay is of the parameter.
    decoupled: bool,
    /// Sets whether elements are limited.
    #[doc(alias = "use_clipping")]
    clipping: bool,
    /// Sets whether the step goes up the gradient.
    maximize: bool,
}

impl Adopt {
    /// ADOPT with its paper's constants and no decay.
    pub fn new(lr: f64) -> Adopt {
        let (betas, eps) = ((0.9, 0.9999), 1e-6);
        Adopt { lr, betas, eps, weight_decay: 0.0, decoupled: false, clipping: true, maximize: false }
    }

    pub(super) fn validate(&self) -> Result<(), OptimizerError> {
        betas_below_1(self.betas)?;
        at_least_0("eps", self.eps)
    }

    pub(super) fn record(&self) -> Hyper {
        let own = flag(self.decoupled, DECOUPLED) | flag(self.clipping, CLIPS_UPDATE);
        let flags = STEPS | ADOPT | own | flag(self.maximize, MAXIMIZE);
        Hyper { lr: self.lr as f32, eps: self.eps as f32, flags, ..of_betas(self.betas) }
    }
}
