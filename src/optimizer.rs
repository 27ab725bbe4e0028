//! The step that uses the clipped gradients, as plain data: SGD, Adam, AdamW, Lion.
//!
//! A step reads gradients through the outcome of their segment, so they are never rewritten: clip and
//! step read them twice, and write parameters and state once.

use crate::error::OptimizerError;
use crate::layout::{ADAM, AMSGRAD, DECOUPLED, EPS_HAT, Hyper, LION, MAXIMIZE, NESTEROV, STEPS};

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
    /// Lion.
    Lion(Lion),
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
    /// Whether the step goes up the gradient.
    #[cfg_attr(feature = "serde", serde(default))]
    pub maximize: bool,
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
    /// Whether the largest v so far takes its place in the step (Reddi et al. 2018, arXiv 1904.09237), which needs a third
    /// moment.
    #[cfg_attr(feature = "serde", serde(default))]
    pub amsgrad: bool,
    /// Whether the step goes up the gradient.
    #[cfg_attr(feature = "serde", serde(default))]
    pub maximize: bool,
}

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

impl Sgd {
    /// Plain gradient descent.
    pub fn new(lr: f64) -> Sgd {
        Sgd { lr, momentum: 0.0, dampening: 0.0, nesterov: false, weight_decay: 0.0, maximize: false }
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

    /// Sets whether the step goes up the gradient.
    #[must_use]
    pub fn maximize(self, maximize: bool) -> Sgd {
        Sgd { maximize, ..self }
    }
}

impl Adam {
    /// Adam with PyTorch's defaults and no decay.
    pub fn new(lr: f64) -> Adam {
        let (betas, eps) = ((0.9, 0.999), 1e-8);
        let (decoupled, eps_hat, amsgrad, maximize) = (false, false, false, false);
        Adam { lr, betas, eps, weight_decay: 0.0, decoupled, eps_hat, amsgrad, maximize }
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

    /// Sets whether the largest second moment so far takes its place.
    #[must_use]
    pub fn amsgrad(self, amsgrad: bool) -> Adam {
        Adam { amsgrad, ..self }
    }

    /// Sets whether the step goes up the gradient.
    #[must_use]
    pub fn maximize(self, maximize: bool) -> Adam {
        Adam { maximize, ..self }
    }
}

impl Lion {
    /// Lion with its paper's β and no decay.
    pub fn new(lr: f64) -> Lion {
        Lion { lr, betas: (0.9, 0.99), weight_decay: 0.0, maximize: false }
    }

    /// Sets β₁ and β₂.
    #[must_use]
    pub fn betas(self, first: f64, second: f64) -> Lion {
        Lion { betas: (first, second), ..self }
    }

    /// Sets the decay.
    #[must_use]
    pub fn weight_decay(self, weight_decay: f64) -> Lion {
        Lion { weight_decay, ..self }
    }

    /// Sets whether the step goes up the gradient.
    #[must_use]
    pub fn maximize(self, maximize: bool) -> Lion {
        Lion { maximize, ..self }
    }
}

impl From<Lion> for Optimizer {
    fn from(lion: Lion) -> Optimizer {
        Optimizer::Lion(lion)
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
            Optimizer::Lion(lion) => lion.lr,
        }
    }

    /// Sets the learning rate: see [`Schedule`](crate::Schedule).
    #[must_use]
    pub fn with_lr(self, lr: f64) -> Optimizer {
        match self {
            Optimizer::Sgd(sgd) => Optimizer::Sgd(Sgd { lr, ..sgd }),
            Optimizer::Adam(adam) => Optimizer::Adam(Adam { lr, ..adam }),
            Optimizer::Lion(lion) => Optimizer::Lion(Lion { lr, ..lion }),
        }
    }

    /// The weight decay of tensors without one of their own.
    pub fn weight_decay(&self) -> f64 {
        match self {
            Optimizer::Sgd(sgd) => sgd.weight_decay,
            Optimizer::Adam(adam) => adam.weight_decay,
            Optimizer::Lion(lion) => lion.weight_decay,
        }
    }

    /// State tensors that each parameter needs: 0 to 3, `f32` in the parameter's shape.
    pub fn moments(&self) -> usize {
        match self {
            Optimizer::Sgd(sgd) => usize::from(sgd.momentum != 0.0),
            Optimizer::Adam(adam) => 2 + usize::from(adam.amsgrad),
            Optimizer::Lion(_) => 1,
        }
    }

    /// How each moment's name ends in a saved run, as PyTorch calls it.
    #[cfg(feature = "checkpoint")]
    pub(crate) fn moment_names(&self) -> &'static [&'static str] {
        let all: &[&str] = match self {
            Optimizer::Sgd(_) => &[".momentum_buffer"],
            Optimizer::Adam(_) | Optimizer::Lion(_) => &[".exp_avg", ".exp_avg_sq", ".max_exp_avg_sq"],
        };
        &all[..self.moments()]
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
                betas_below_1(adam.betas)?;
                ("eps", adam.eps)
            }
            Optimizer::Lion(lion) => {
                betas_below_1(lion.betas)?;
                ("learning rate", lr)
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
            Optimizer::Sgd(Sgd { lr, momentum, dampening, nesterov, maximize, .. }) => Hyper {
                lr: lr as f32,
                decay: momentum as f32,
                share: (1.0 - dampening) as f32,
                flags: STEPS | flag(nesterov, NESTEROV) | flag(maximize, MAXIMIZE),
                ..nothing
            },
            Optimizer::Adam(Adam { lr, betas, eps, decoupled, eps_hat, amsgrad, maximize, .. }) => Hyper {
                lr: lr as f32,
                decay: betas.0 as f32,
                share: (1.0 - betas.0) as f32,
                second_decay: betas.1 as f32,
                second_share: (1.0 - betas.1) as f32,
                eps: eps as f32,
                flags: STEPS
                    | ADAM
                    | flag(decoupled, DECOUPLED)
                    | flag(eps_hat, EPS_HAT)
                    | flag(amsgrad, AMSGRAD)
                    | flag(maximize, MAXIMIZE),
                ..nothing
            },
            Optimizer::Lion(Lion { lr, betas, maximize, .. }) => Hyper {
                lr: lr as f32,
                decay: betas.0 as f32,
                share: (1.0 - betas.0) as f32,
                second_decay: betas.1 as f32,
                second_share: (1.0 - betas.1) as f32,
                flags: STEPS | LION | DECOUPLED | flag(maximize, MAXIMIZE),
                ..nothing
            },
        }
    }
}

fn flag(set: bool, bit: u32) -> u32 {
    if set { bit } else { 0 }
}

fn betas_below_1((first, second): (f64, f64)) -> Result<(), OptimizerError> {
    for (what, given) in [("β₁", first), ("β₂", second)] {
        // What rounds to 1 would make the correction infinite.
        if !(0.0..1.0).contains(&given) || (1.0 - given) as f32 == 0.0 || given as f32 == 1.0 {
            return Err(OptimizerError::Constant { what, required: "from 0 to below 1", given });
        }
    }
    Ok(())
}

/// Whether a constant is 0 or more and an `f32` holds it.
pub(crate) fn at_least_0(what: &'static str, given: f64) -> Result<(), OptimizerError> {
    if given >= 0.0 && (given as f32).is_finite() {
        return Ok(());
    }
    Err(OptimizerError::Constant { what, required: "0 or more and finite", given })
}
