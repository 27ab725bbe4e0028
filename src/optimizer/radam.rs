//! RAdam.

use crate::error::OptimizerError;
use crate::layout::{ADAM, DECOUPLED, EPS_HAT, Hyper, MAXIMIZE, RADAM, STEPS};

use super::constants::{at_least_0, betas_below_1, flag, of_betas, setters};

/// RAdam (Liu et al. 2020, arXiv 1908.03265) as `torch.optim.RAdam` defines it. With the clipped gradient g, parameter p, moments
/// m and v, in step t counted from 1:
///
/// ```text
/// L2:    g ← g + weight_decay · p        decoupled:  p ← p − lr · weight_decay · p
/// m ← β₁ m + (1 − β₁) g
/// v ← β₂ v + (1 − β₂) g²
/// ρ∞ = 2 / (1 − β₂) − 1,  ρₜ = ρ∞ − 2 t β₂ᵗ / (1 − β₂ᵗ)
/// r = √((ρₜ − 4) (ρₜ − 2) ρ∞ / ((ρ∞ − 4) (ρ∞ − 2) ρₜ))
/// p ← p − lr · m / (1 − β₁ᵗ) · r √(1 − β₂ᵗ) / (√v + eps) where ρₜ > 5
/// p ← p − lr · m / (1 − β₁ᵗ) elsewhere
/// ```
///
/// The first five steps are never rectified, and none is with a β₂ up to 2 / 3: those go as far as the gradient does, which for a
/// gradient far from 1 is not as far as the later ones.
///
/// ```
/// use gradclip::{Optimizer, RAdam};
///
/// let radam: Optimizer = RAdam::new(1e-3).betas(0.9, 0.99).weight_decay(0.05).into();
/// assert_eq!(radam.moments(), 2);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct RAdam {
    /// Learning rate, 0 or more.
    pub lr: f64,
    /// β₁ and β₂, from 0 to below 1. 0.9 and 0.999 unless set.
    pub betas: (f64, f64),
    /// Added to √v before its correction, 0 or more. 1e-8 unless set.
    pub eps: f64,
    /// L2 penalty, or decay of the parameter. 0 unless set.
    pub weight_decay: f64,
    /// Whether the decay is of the parameter.
    pub decoupled: bool,
    /// Whether the step goes up the gradient.
    pub maximize: bool,
}

setters! {
    RAdam:
    /// Sets what is added to the root.
    eps: f64,
    /// Sets the L2 penalty, or the decay.
    weight_decay: f64,
    /// Sets whether the decay is of the parameter.
    #[doc(alias = "decoupled_weight_decay")]
    decoupled: bool,
    /// Sets whether the step goes up the gradient.
    maximize: bool,
}

impl RAdam {
    /// RAdam with PyTorch's defaults and no decay.
    pub fn new(lr: f64) -> RAdam {
        let (betas, eps) = ((0.9, 0.999), 1e-8);
        RAdam { lr, betas, eps, weight_decay: 0.0, decoupled: false, maximize: false }
    }

    pub(super) fn validate(&self) -> Result<(), OptimizerError> {
        betas_below_1(self.betas)?;
        at_least_0("eps", self.eps)
    }

    pub(super) fn record(&self) -> Hyper {
        // Without a meaning, and not used, where no step is rectified.
        let most = 2.0 / (1.0 - self.betas.1) - 1.0;
        Hyper {
            lr: self.lr as f32,
            eps: self.eps as f32,
            rectification: (most / ((most - 4.0) * (most - 2.0))) as f32,
            flags: STEPS
                | ADAM
                | RADAM
                | EPS_HAT
                | flag(self.decoupled, DECOUPLED)
                | flag(self.maximize, MAXIMIZE),
            ..of_betas(self.betas)
        }
    }
}
