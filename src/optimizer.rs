//! The step that uses the clipped gradients, as plain data: SGD, LARS, Adam, AdamW, LAMB, StableAdamW, NAdam, RAdam, SPAM, ADOPT, Lion.
//!
//! A step reads gradients through the outcome of their segment, so they are never rewritten: clip and
//! step read them twice, and write parameters and state once.

use crate::error::OptimizerError;
use crate::layout::{Hyper, RATIOS};

mod adam;
mod adopt;
mod constants;
mod lars;
mod limit;
mod lion;
mod nadam;
mod radam;
mod sgd;
mod spam;

pub use adam::Adam;
pub use adopt::Adopt;
pub(crate) use constants::{at_least_0, check_lr_scales};
pub use lars::Lars;
pub use limit::{TrustRatio, UpdateLimit};
pub use lion::Lion;
pub use nadam::NAdam;
pub use radam::RAdam;
pub use sgd::Sgd;
pub use spam::Spam;

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
    /// LARS.
    Lars(Lars),
    /// Adam, AdamW, LAMB or StableAdamW.
    Adam(Adam),
    /// NAdam.
    NAdam(NAdam),
    /// RAdam.
    RAdam(RAdam),
    /// SPAM.
    Spam(Spam),
    /// ADOPT.
    Adopt(Adopt),
    /// Lion.
    Lion(Lion),
}

/// Optimisers by value, and what all of them have.
macro_rules! optimizers {
    ($($name:ident),+) => {
        $(impl From<$name> for Optimizer {
            fn from(optimizer: $name) -> Optimizer {
                Optimizer::$name(optimizer)
            }
        })+

        impl Optimizer {
            /// The learning rate.
            pub fn lr(&self) -> f64 {
                match self {
                    $(Optimizer::$name(optimizer) => optimizer.lr,)+
                }
            }

            /// Sets the learning rate: see [`Schedule`](crate::Schedule).
            #[must_use]
            pub fn with_lr(self, lr: f64) -> Optimizer {
                match self {
                    $(Optimizer::$name(optimizer) => $name { lr, ..optimizer }.into(),)+
                }
            }

            /// The weight decay of tensors without one of their own.
            pub fn weight_decay(&self) -> f64 {
                match self {
                    $(Optimizer::$name(optimizer) => optimizer.weight_decay,)+
                }
            }

            /// The constants that are this optimiser's alone.
            fn validate_own(&self) -> Result<(), OptimizerError> {
                match self {
                    $(Optimizer::$name(optimizer) => optimizer.validate(),)+
                }
            }

            /// The same constants as the kernels and the CPU path use them.
            pub(crate) fn record(&self) -> Hyper {
                match self {
                    $(Optimizer::$name(optimizer) => optimizer.record(),)+
                }
            }
        }
    };
}
optimizers!(Sgd, Lars, Adam, NAdam, RAdam, Spam, Adopt, Lion);

/// The decays of moments, of those that have two.
macro_rules! with_betas {
    ($($name:ident),+) => {
        $(impl $name {
            /// Sets β₁ and β₂.
            #[must_use]
            pub fn betas(self, first: f64, second: f64) -> $name {
                $name { betas: (first, second), ..self }
            }
        })+
    };
}
with_betas!(Adam, NAdam, RAdam, Spam, Adopt, Lion);

impl Optimizer {
    /// State tensors that each parameter needs: 0 to 3, `f32` in the parameter's shape.
    pub fn moments(&self) -> usize {
        match self {
            Optimizer::Sgd(sgd) => usize::from(sgd.momentum != 0.0),
            Optimizer::Adam(adam) => 2 + usize::from(adam.amsgrad),
            Optimizer::NAdam(_) | Optimizer::RAdam(_) | Optimizer::Spam(_) | Optimizer::Adopt(_) => 2,
            Optimizer::Lars(_) | Optimizer::Lion(_) => 1,
        }
    }

    /// How each moment's name ends in a saved run, as PyTorch calls it.
    #[cfg(feature = "checkpoint")]
    pub(crate) fn moment_names(&self) -> &'static [&'static str] {
        let all: &[&str] = match self {
            Optimizer::Sgd(_) | Optimizer::Lars(_) => &[".momentum_buffer"],
            _ => &[".exp_avg", ".exp_avg_sq", ".max_exp_avg_sq"],
        };
        &all[..self.moments()]
    }

    /// Whether the product of all μ so far belongs to its state, as NAdam has it.
    #[cfg(feature = "checkpoint")]
    pub(crate) fn has_product(&self) -> bool {
        matches!(self, Optimizer::NAdam(_))
    }

    /// Checks every constant.
    ///
    /// # Errors
    ///
    /// A learning rate, momentum, momentum decay, eps, trust coefficient or weight decay that is negative, infinite or NaN or that no
    /// `f32` holds; a limit that is not above 0; a β outside 0 to below 1; AMSGrad with a limit of updates; Nesterov's momentum without momentum or with dampening.
    pub fn validate(&self) -> Result<(), OptimizerError> {
        at_least_0("learning rate", self.lr())?;
        at_least_0("weight decay", self.weight_decay())?;
        self.validate_own()
    }

    /// Whether each tensor's update has a factor that follows from all of it.
    pub(crate) fn has_ratios(&self) -> bool {
        self.record().flags & RATIOS != 0
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
}
