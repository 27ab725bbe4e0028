//! Adam, AdamW, AMSGrad.

use crate::error::OptimizerError;
use crate::layout::{ADAM, AMSGRAD, DECOUPLED, EPS_HAT, Hyper, MAXIMIZE, STEPS};

use super::constants::{at_least_0, betas_below_1, flag, of_betas, setters};
use super::limit::{TrustRatio, UpdateLimit};

/// Adam (Kingma and Ba 2015, arXiv 1412.6980) and AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101)
/// as `torch.optim` defines them. With the clipped gradient g, parameter p, moments m and v, in step t
/// counted from 1:
///
/// ```text
/// Adam:  g ← g + weight_decay · p        AdamW:  p ← p − lr · weight_decay · p
/// m ← β₁ m + (1 − β₁) g
/// v ← β₂ v + (1 − β₂) g²
/// p ← p − lr · (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + eps)
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Adam {
    /// Learning rate, 0 or more.
    pub lr: f64,
    /// β₁ and β₂, from 0 to below 1. 0.9 and 0.999 unless set.
    pub betas: (f64, f64),
    /// Added to the root, 0 or more. 1e-8 unless set.
    pub eps: f64,
    /// L2 penalty, or decay of the parameter.
    pub weight_decay: f64,
    /// Whether the decay is of the parameter: AdamW.
    pub decoupled: bool,
    /// Whether eps is added to √v before its correction, as Keras does ("epsilon hat" of the paper's
    /// section 2): it then counts for more in the first steps.
    pub eps_hat: bool,
    /// Whether the largest v so far takes its place in the step (Reddi et al. 2018, arXiv 1904.09237), which needs a third
    /// moment.
    #[cfg_attr(feature = "serde", serde(default))]
    pub amsgrad: bool,
    /// Whether the step goes up the gradient.
    #[cfg_attr(feature = "serde", serde(default))]
    pub maximize: bool,
    /// What the update of each tensor is limited by, if anything.
    #[cfg_attr(feature = "serde", serde(default))]
    pub limit: Option<UpdateLimit>,
}

setters! {
    Adam:
    /// Sets what is added to the root.
    eps: f64,
    /// Sets whether it is added before the correction.
    eps_hat: bool,
    /// Sets the L2 penalty, or the decay.
    weight_decay: f64,
    /// Sets whether the largest second moment so far takes its place.
    amsgrad: bool,
    /// Sets whether the step goes up the gradient.
    maximize: bool,
}

impl Adam {
    /// Adam with PyTorch's defaults and no decay.
    pub fn new(lr: f64) -> Adam {
        let (betas, eps) = ((0.9, 0.999), 1e-8);
        let (decoupled, eps_hat, amsgrad, maximize) = (false, false, false, false);
        Adam { lr, betas, eps, weight_decay: 0.0, decoupled, eps_hat, amsgrad, maximize, limit: None }
    }

    /// AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) with PyTorch's defaults: a decay of 0.01.
    #[doc(alias = "AdamW")]
    pub fn adamw(lr: f64) -> Adam {
        Adam { weight_decay: 0.01, decoupled: true, ..Adam::new(lr) }
    }

    /// StableAdamW (Wortsman et al. 2023, arXiv 2304.13013) with torch-optimi's constants: [`UpdateLimit::Rate`], β₂ 0.99, eps 1e-6, a decay
    /// of 0.01.
    #[doc(alias = "StableAdamW")]
    pub fn stable_adamw(lr: f64) -> Adam {
        Adam::adamw(lr).betas(0.9, 0.99).eps(1e-6).limit(UpdateLimit::Rate)
    }

    /// LAMB (You et al. 2020, arXiv 1904.00962) with Optax' constants: AdamW with a [`TrustRatio`], eps 1e-6, no decay.
    #[doc(alias = "Lamb")]
    pub fn lamb(lr: f64) -> Adam {
        Adam::adamw(lr).eps(1e-6).weight_decay(0.0).limit(TrustRatio::default())
    }

    /// Limits the update of each tensor.
    #[must_use]
    pub fn limit(self, limit: impl Into<UpdateLimit>) -> Adam {
        Adam { limit: Some(limit.into()), ..self }
    }

    pub(super) fn validate(&self) -> Result<(), OptimizerError> {
        betas_below_1(self.betas)?;
        at_least_0("eps", self.eps)?;
        let Some(limit) = &self.limit else { return Ok(()) };
        if self.amsgrad {
            let (what, required) = ("AMSGrad", "no limit of updates");
            return Err(OptimizerError::Combination { what, required });
        }
        limit.validate()
    }

    pub(super) fn record(&self) -> Hyper {
        let hyper = self.plain();
        self.limit.map_or(hyper, |limit| limit.added_to(hyper))
    }

    /// Without a limit.
    fn plain(&self) -> Hyper {
        Hyper {
            lr: self.lr as f32,
            eps: self.eps as f32,
            flags: STEPS
                | ADAM
                | flag(self.decoupled, DECOUPLED)
                | flag(self.eps_hat, EPS_HAT)
                | flag(self.amsgrad, AMSGRAD)
                | flag(self.maximize, MAXIMIZE),
            ..of_betas(self.betas)
        }
    }
}
