//! Lion.

use crate::error::OptimizerError;
use crate::layout::{DECOUPLED, Hyper, LION, MAXIMIZE, STEPS};

use super::constants::{betas_below_1, flag, of_betas, setters};

/// Lion (Chen et al. 2023, arXiv 2302.06675) as `optax.lion` defines it. With the clipped gradient g, parameter p and momentum m:
///
/// ```text
/// c ← β₁ m + (1 − β₁) g
/// p ← p − lr · (sign(c) + weight_decay · p)
/// m ← β₂ m + (1 − β₂) g
/// ```
///
/// Elements move by lr whatever their gradient: a global norm that is clipped changes what the momentum remembers, not how far
/// a step goes.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Lion {
    /// Learning rate, 0 or more.
    pub lr: f64,
    /// β₁ and β₂, from 0 to below 1. 0.9 and 0.99 unless set.
    pub betas: (f64, f64),
    /// Decay of the parameter. 0 unless set.
    pub weight_decay: f64,
    /// Whether the step goes up the gradient.
    #[cfg_attr(feature = "serde", serde(default))]
    pub maximize: bool,
}

setters! {
    Lion:
    /// Sets the decay.
    weight_decay: f64,
    /// Sets whether the step goes up the gradient.
    maximize: bool,
}

impl Lion {
    /// Lion with its paper's β and no decay.
    pub fn new(lr: f64) -> Lion {
        Lion { lr, betas: (0.9, 0.99), weight_decay: 0.0, maximize: false }
    }

    pub(super) fn validate(&self) -> Result<(), OptimizerError> {
        betas_below_1(self.betas)
    }

    pub(super) fn record(&self) -> Hyper {
        let flags = STEPS | LION | DECOUPLED | flag(self.maximize, MAXIMIZE);
        Hyper { lr: self.lr as f32, flags, ..of_betas(self.betas) }
    }
}
