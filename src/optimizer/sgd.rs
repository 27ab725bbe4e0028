//! Stochastic gradient descent.

use crate::error::OptimizerError;
use crate::layout::{Hyper, MAXIMIZE, NESTEROV, STEPS};

use super::constants::{at_least_0, flag, setters};

/// Stochastic gradient descent as `torch.optim.SGD` defines it. With the clipped gradient g, parameter
/// p and momentum buffer b:
///
/// ```text
/// g ← g + weight_decay · p
/// b ← g in the first step, later momentum · b + (1 − dampening) · g
/// g ← g + momentum · b with Nesterov's momentum, b with plain momentum
/// p ← p − lr · g
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Sgd {
    /// Learning rate, 0 or more.
    pub lr: f64,
    /// Momentum, 0 or more. 0, the default, needs no state.
    pub momentum: f64,
    /// What of the gradient does not go into the momentum. 0 unless set.
    pub dampening: f64,
    /// Nesterov's momentum (Sutskever et al. 2013), which needs a momentum and no dampening.
    pub nesterov: bool,
    /// L2 penalty. 0 unless set.
    pub weight_decay: f64,
    /// Whether the step goes up the gradient.
    #[cfg_attr(feature = "serde", serde(default))]
    pub maximize: bool,
}

setters! {
    Sgd:
    /// Sets the momentum.
    momentum: f64,
    /// Sets the dampening.
    dampening: f64,
    /// Sets whether the momentum is Nesterov's.
    nesterov: bool,
    /// Sets the L2 penalty.
    weight_decay: f64,
    /// Sets whether the step goes up the gradient.
    maximize: bool,
}

impl Sgd {
    /// Plain gradient descent.
    pub fn new(lr: f64) -> Sgd {
        Sgd { lr, momentum: 0.0, dampening: 0.0, nesterov: false, weight_decay: 0.0, maximize: false }
    }

    pub(super) fn validate(&self) -> Result<(), OptimizerError> {
        at_least_0("dampening", self.dampening.abs())?;
        let plain = self.momentum > 0.0 && self.dampening == 0.0;
        if self.nesterov && !plain {
            let (what, required) = ("Nesterov's momentum", "a momentum above 0 and no dampening");
            return Err(OptimizerError::Combination { what, required });
        }
        at_least_0("momentum", self.momentum)
    }

    pub(super) fn record(&self) -> Hyper {
        Hyper {
            lr: self.lr as f32,
            decay: self.momentum as f32,
            share: (1.0 - self.dampening) as f32,
            flags: STEPS | flag(self.nesterov, NESTEROV) | flag(self.maximize, MAXIMIZE),
            ..bytemuck::Zeroable::zeroed()
        }
    }
}
