//! LARS.

use crate::error::OptimizerError;
use crate::layout::{Hyper, LARS, MAXIMIZE, NESTEROV, NORMS_APART, STEPS};

use super::constants::{at_least_0, flag, setters};
use super::limit::TrustRatio;

/// LARS (You et al. 2017, arXiv 1708.03888) as `optax.lars` defines it: SGD whose gradient has, tensor by tensor, a length that follows from
/// its parameter's. With the clipped gradient g, parameter p and momentum m:
///
/// ```text
/// u = g + weight_decay · p
/// r = coefficient · ‖p‖ / (‖u‖ + eps),  1 where ‖p‖ or ‖u‖ is 0
/// m ← momentum · m + lr · r · u
/// p ← p − m,                  Nesterov: p ← p − (momentum · m + lr · r · u)
/// ```
///
/// With [`Lars::norms_apart`] the divisor is ‖g‖ + weight_decay · ‖p‖ + eps, as the paper and NVIDIA's Apex have it.
///
/// ```
/// use gradclip::{Lars, Optimizer};
///
/// let lars: Optimizer = Lars::new(0.1).momentum(0.9).weight_decay(1e-4).into();
/// assert_eq!(lars.moments(), 1);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Lars {
    /// Learning rate, 0 or more.
    pub lr: f64,
    /// Factor of the momentum, 0 or more. 0.9 unless set.
    pub momentum: f64,
    /// L2 penalty. 0 unless set.
    pub weight_decay: f64,
    /// How long an update is. A coefficient of 0.001 unless set.
    pub trust: TrustRatio,
    /// Whether the lengths of gradient and penalty are added, not the vectors.
    pub norms_apart: bool,
    /// Whether the momentum is applied once more ahead.
    pub nesterov: bool,
    /// Whether the step goes up the gradient.
    pub maximize: bool,
}

setters! {
    Lars:
    /// Sets the factor of the momentum.
    momentum: f64,
    /// Sets the L2 penalty.
    weight_decay: f64,
    /// Sets how long an update is.
    trust: TrustRatio,
    /// Sets whether the lengths of gradient and penalty are added, not the vectors.
    norms_apart: bool,
    /// Sets whether the momentum is applied once more ahead.
    nesterov: bool,
    /// Sets whether the step goes up the gradient.
    maximize: bool,
}

impl Lars {
    /// LARS with Optax' constants: a momentum of 0.9, a trust coefficient of 0.001, no penalty.
    pub fn new(lr: f64) -> Lars {
        let trust = TrustRatio { coefficient: 0.001, ..TrustRatio::default() };
        let (norms_apart, nesterov, maximize) = (false, false, false);
        Lars { lr, momentum: 0.9, weight_decay: 0.0, trust, norms_apart, nesterov, maximize }
    }

    pub(super) fn validate(&self) -> Result<(), OptimizerError> {
        at_least_0("momentum", self.momentum)?;
        self.trust.validate()
    }

    pub(super) fn record(&self) -> Hyper {
        let own = flag(self.norms_apart, NORMS_APART) | flag(self.nesterov, NESTEROV);
        let flags = STEPS | LARS | own | flag(self.maximize, MAXIMIZE);
        let (lr, decay) = (self.lr as f32, self.momentum as f32);
        self.trust.added_to(Hyper { lr, decay, share: 1.0, flags, ..bytemuck::Zeroable::zeroed() })
    }
}
