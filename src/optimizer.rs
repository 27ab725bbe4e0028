//! The step that uses the clipped gradients, as plain data: SGD, Adam and AdamW.
//!
//! A step reads gradients through the outcome of their segment, so they are never rewritten: clip and
//! step read them twice, and write parameters and state once.

use crate::error::OptimizerError;
use crate::layout::{ADAM, DECOUPLED, EPS_HAT, Hyper, NESTEROV, STEPS};

/// An update rule with its constants. Constants are `f64` as in PyTorch, and rounded once.
///
/// ```
/// use gradclip::{Adam, Optimizer, Sgd};
///
/// let sgd: Optimizer = Sgd::new(0.1).momentum(0.9).nesterov(true).into();
/// let adamw: Optimizer = Adam::adamw(1e-3).weight_decay(0.1).into();
/// assert_eq!((sgd.moments(), adamw.moments()), (1, 2));
/// assert!(Optimizer::from(Sgd::new(-1.0)).validate().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Optimizer {
    /// Stochastic gradient descent.
    Sgd(Sgd),
    /// Adam or AdamW.
    Adam(Adam),
}

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
}

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
}

impl Sgd {
    /// Plain gradient descent.
    pub fn new(lr: f64) -> Sgd {
        Sgd { lr, momentum: 0.0, dampening: 0.0, nesterov: false, weight_decay: 0.0 }
    }

    /// Sets the momentum.
    #[must_use]
    pub fn momentum(self, momentum: f64) -> Sgd {
        Sgd { momentum, ..self }
    }

    /// Sets the dampening.
    #[must_use]
    pub fn dampening(self, dampening: f64) -> Sgd {
        Sgd { dampening, ..self }
    }

    /// Sets whether the momentum is Nesterov's.
    #[must_use]
    pub fn nesterov(self, nesterov: bool) -> Sgd {
        Sgd { nesterov, ..self }
    }

    /// Sets the L2 penalty.
    #[must_use]
    pub fn weight_decay(self, weight_decay: f64) -> Sgd {
        Sgd { weight_decay, ..self }
    }
}

impl Adam {
    /// Adam with PyTorch's defaults and no decay.
    pub fn new(lr: f64) -> Adam {
        Adam { lr, betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0, decoupled: false, eps_hat: false }
    }

    /// AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) with PyTorch's defaults: a decay of 0.01.
    #[doc(alias = "AdamW")]
    pub fn adamw(lr: f64) -> Adam {
        Adam { weight_decay: 0.01, decoupled: true, ..Adam::new(lr) }
    }

    /// Sets β₁ and β₂.
    #[must_use]
    pub fn betas(self, first: f64, second: f64) -> Adam {
        Adam { betas: (first, second), ..self }
    }

    /// Sets what is added to the root.
    #[must_use]
    pub fn eps(self, eps: f64) -> Adam {
        Adam { eps, ..self }
    }

    /// Sets whether it is added before the correction.
    #[must_use]
    pub fn eps_hat(self, eps_hat: bool) -> Adam {
        Adam { eps_hat, ..self }
    }

    /// Sets the L2 penalty, or the decay.
    #[must_use]
    pub fn weight_decay(self, weight_decay: f64) -> Adam {
        Adam { weight_decay, ..self }
    }
}

impl From<Sgd> for Optimizer {
    fn from(sgd: Sgd) -> Optimizer {
        Optimizer::Sgd(sgd)
    }
}

impl From<Adam> for Optimizer {
    fn from(adam: Adam) -> Optimizer {
        Optimizer::Adam(adam)
    }
}

impl Optimizer {
    /// The learning rate.
    pub fn lr(&self) -> f64 {
        match self {
            Optimizer::Sgd(sgd) => sgd.lr,
            Optimizer::Adam(adam) => adam.lr,
        }
    }

    /// Sets the learning rate: see [`Schedule`](crate::Schedule).
    #[must_use]
    pub fn with_lr(self, lr: f64) -> Optimizer {
        match self {
            Optimizer::Sgd(sgd) => Optimizer::Sgd(Sgd { lr, ..sgd }),
            Optimizer::Adam(adam) => Optimizer::Adam(Adam { lr, ..adam }),
        }
    }

    /// The weight decay of tensors without one of their own.
    pub fn weight_decay(&self) -> f64 {
        match self {
            Optimizer::Sgd(sgd) => sgd.weight_decay,
            Optimizer::Adam(adam) => adam.weight_decay,
        }
    }

    /// State tensors that each parameter needs: 0, 1 or 2, `f32` in the parameter's shape.
    pub fn moments(&self) -> usize {
        match self {
            Optimizer::Sgd(sgd) => usize::from(sgd.momentum != 0.0),
            Optimizer::Adam(_) => 2,
        }
    }

    /// Checks every constant.
    ///
    /// # Errors
    ///
    /// A learning rate, momentum, eps or weight decay that is negative, infinite or NaN or that no
    /// `f32` holds; a β outside 0 to below 1; Nesterov's momentum without momentum or with dampening.
    pub fn validate(&self) -> Result<(), OptimizerError> {
        let (lr, weight_decay) = (self.lr(), self.weight_decay());
        let own = match *self {
            Optimizer::Sgd(sgd) => {
                at_least_0("dampening", sgd.dampening.abs())?;
                let plain = sgd.momentum > 0.0 && sgd.dampening == 0.0;
                if sgd.nesterov && !plain {
                    let (what, required) = ("Nesterov's momentum", "a momentum above 0 and no dampening");
                    return Err(OptimizerError::Combination { what, required });
                }
                ("momentum", sgd.momentum)
            }
            Optimizer::Adam(adam) => {
                for (what, given) in [("β₁", adam.betas.0), ("β₂", adam.betas.1)] {
                    // What rounds to 1 would make the correction infinite.
                    if !(0.0..1.0).contains(&given) || (1.0 - given) as f32 == 0.0 || given as f32 == 1.0 {
                        return Err(OptimizerError::Constant { what, required: "from 0 to below 1", given });
                    }
                }
                ("eps", adam.eps)
            }
        };
        let constants = [("learning rate", lr), ("weight decay", weight_decay), own];
        constants.into_iter().try_for_each(|(what, given)| at_least_0(what, given))
    }

    /// That it can go on with the state of another one.
    pub(crate) fn goes_on_from(&self, previous: &Optimizer) -> Result<(), OptimizerError> {
        let same = std::mem::discriminant(self) == std::mem::discriminant(previous);
        if same && self.moments() == previous.moments() {
            return Ok(());
        }
        let (what, required) = ("another optimiser", "the state that this one has");
        Err(OptimizerError::Combination { what, required })
    }

    /// The same constants as the kernels and the CPU path use them.
    pub(crate) fn record(&self) -> Hyper {
        let nothing = bytemuck::Zeroable::zeroed();
        match *self {
            Optimizer::Sgd(Sgd { lr, momentum, dampening, nesterov, .. }) => Hyper {
                lr: lr as f32,
                decay: momentum as f32,
                share: (1.0 - dampening) as f32,
                flags: STEPS | if nesterov { NESTEROV } else { 0 },
                ..nothing
            },
            Optimizer::Adam(Adam { lr, betas, eps, decoupled, eps_hat, .. }) => Hyper {
                lr: lr as f32,
                decay: betas.0 as f32,
                share: (1.0 - betas.0) as f32,
                second_decay: betas.1 as f32,
                second_share: (1.0 - betas.1) as f32,
                eps: eps as f32,
                flags: STEPS
                    | ADAM
                    | if decoupled { DECOUPLED } else { 0 }
                    | if eps_hat { EPS_HAT } else { 0 },
                ..nothing
            },
        }
    }
}

/// Whether a constant is 0 or more and an `f32` holds it.
pub(crate) fn at_least_0(what: &'static str, given: f64) -> Result<(), OptimizerError> {
    if given >= 0.0 && (given as f32).is_finite() {
        return Ok(());
    }
    Err(OptimizerError::Constant { what, required: "0 or more and finite", given })
}
