//! NAdam.

use crate::error::OptimizerError;
use crate::layout::{ADAM, DECOUPLED, Hyper, MAXIMIZE, NADAM, STEPS};

use super::constants::{at_least_0, betas_below_1, flag, of_betas, setters};

/// NAdam (Dozat 2016, "Incorporating Nesterov Momentum into Adam") as `torch.optim.NAdam` defines it. With the clipped gradient g,
/// parameter p, moments m and v, in step t counted from 1:
///
/// ```text
/// L2:    g ← g + weight_decay · p        decoupled:  p ← p − lr · weight_decay · p
/// m ← β₁ m + (1 − β₁) g
/// v ← β₂ v + (1 − β₂) g²
/// μₜ = β₁ (1 − ½ · 0.96^(t · momentum_decay)),  Pₜ = μ₁ μ₂ … μₜ
/// n = (1 − μₜ) / (1 − Pₜ) · g + μₜ₊₁ / (1 − Pₜ μₜ₊₁) · m
/// p ← p − lr · n / (√(v / (1 − β₂ᵗ)) + eps)
/// ```
///
/// The product P is a part of the [`History`](crate::History), as the number of steps is.
///
/// ```
/// use gradclip::{NAdam, Optimizer};
///
/// let nadam: Optimizer = NAdam::new(2e-3).weight_decay(0.01).decoupled(true).into();
/// assert_eq!(nadam.moments(), 2);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct NAdam {
    /// Learning rate, 0 or more.
    pub lr: f64,
    /// β₁ and β₂, from 0 to below 1. 0.9 and 0.999 unless set.
    pub betas: (f64, f64),
    /// Added to the root, 0 or more. 1e-8 unless set.
    pub eps: f64,
    /// L2 penalty, or decay of the parameter. 0 unless set.
    pub weight_decay: f64,
    /// Whether the decay is of the parameter.
    pub decoupled: bool,
    /// How fast μ grows from β₁ / 2 to β₁, 0 or more. 0.004 unless set.
    pub momentum_decay: f64,
    /// Whether the step goes up the gradient.
    pub maximize: bool,
}

setters! {
    NAdam:
    /// Sets what is added to the root.
    eps: f64,
    /// Sets the L2 penalty, or the decay.
    weight_decay: f64,
    /// Sets whether the decay is of the parameter.
    #[doc(alias = "decoupled_weight_decay")]
    decoupled: bool,
    /// Sets how fast μ grows.
    momentum_decay: f64,
    /// Sets whether the step goes up the gradient.
    maximize: bool,
}

impl NAdam {
    /// NAdam with PyTorch's defaults and no decay.
    pub fn new(lr: f64) -> NAdam {
        let (betas, eps, momentum_decay) = ((0.9, 0.999), 1e-8, 4e-3);
        NAdam { lr, betas, eps, weight_decay: 0.0, decoupled: false, momentum_decay, maximize: false }
    }

    pub(super) fn validate(&self) -> Result<(), OptimizerError> {
        betas_below_1(self.betas)?;
        at_least_0("momentum decay", self.momentum_decay)?;
        at_least_0("eps", self.eps)
    }

    pub(super) fn record(&self) -> Hyper {
        Hyper {
            lr: self.lr as f32,
            eps: self.eps as f32,
            // 1 - 0.96^ψ, in which nothing cancels.
            momentum_share: -f64::exp_m1(self.momentum_decay * f64::ln(0.96)) as f32,
            flags: STEPS | ADAM | NADAM | flag(self.decoupled, DECOUPLED) | flag(self.maximize, MAXIMIZE),
            ..of_betas(self.betas)
        }
    }
}
