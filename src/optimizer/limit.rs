//! Limits of an update, tensor by tensor.

use crate::error::OptimizerError;
use crate::layout::{Hyper, LIMITS_RATE, LIMITS_RMS, TRUST_RATIO};

use super::constants::{above_0, at_least_0, setters};

/// What Adam's update of a tensor is limited by. It follows from all elements of the tensor, so that a step reads gradients, parameters and
/// moments once more; each mean and length comes from the same integer sums as norms.
///
/// ```
/// use gradclip::{Adam, Optimizer, TrustRatio, UpdateLimit};
///
/// // Adafactor's limit of Adam's update.
/// let limited: Optimizer = Adam::new(1e-3).limit(UpdateLimit::Rms(1.0)).into();
/// // LAMBC: a ratio of at most 1.
/// let lambc: Optimizer = Adam::lamb(1e-3).limit(TrustRatio::default().most(1.0)).into();
/// assert!(limited.validate().is_ok() && lambc.validate().is_ok());
/// assert!(Optimizer::from(Adam::new(1e-3).limit(UpdateLimit::Rms(0.0))).validate().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum UpdateLimit {
    /// u / max(1, RMS(u) / d), u without decay and learning rate and RMS the root of the mean of its squares: Adafactor's (Shazeer and
    /// Stern 2018, arXiv 1804.04235), Optax' `clip_by_block_rms`. d is above 0, there 1.
    #[doc(alias = "clip_by_block_rms")]
    Rms(f64),
    /// lr / max(1, RMS(g / √v̂)), v̂ the corrected second moment that this gradient is in and its root at least eps: StableAdamW (Wortsman et
    /// al. 2023, arXiv 2304.13013).
    Rate,
    /// The update of a tensor is as long as its parameter: LAMB (You et al. 2020, arXiv 1904.00962).
    Trust(TrustRatio),
}

impl From<TrustRatio> for UpdateLimit {
    fn from(ratio: TrustRatio) -> UpdateLimit {
        UpdateLimit::Trust(ratio)
    }
}

impl UpdateLimit {
    pub(super) fn validate(&self) -> Result<(), OptimizerError> {
        match self {
            UpdateLimit::Rms(most) => above_0("largest root of a mean square", *most),
            UpdateLimit::Rate => Ok(()),
            UpdateLimit::Trust(ratio) => ratio.validate(),
        }
    }

    /// The same as a record has it.
    pub(super) fn added_to(&self, hyper: Hyper) -> Hyper {
        match self {
            UpdateLimit::Rms(most) => Hyper { limit: *most as f32, flags: hyper.flags | LIMITS_RMS, ..hyper },
            UpdateLimit::Rate => Hyper { limit: 1.0, flags: hyper.flags | LIMITS_RATE, ..hyper },
            UpdateLimit::Trust(ratio) => ratio.added_to(hyper),
        }
    }
}

/// A factor of a tensor's update u that follows from the length of its parameter p, both in L2:
///
/// ```text
/// min(most, coefficient · ‖p‖ / (‖u‖ + eps)),  1 where ‖p‖ or ‖u‖ is 0
/// ```
///
/// as Optax' `scale_by_trust_ratio` and timm's LAMB have it.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct TrustRatio {
    /// Factor, 0 or more. 1 unless set; LARS' is 0.001.
    pub coefficient: f64,
    /// Added to ‖u‖, 0 or more. 0 unless set.
    pub eps: f64,
    /// The largest ratio, above 0. Infinity unless set; 1 is LAMBC, timm's `trust_clip`.
    pub most: f64,
}

impl Default for TrustRatio {
    fn default() -> TrustRatio {
        TrustRatio { coefficient: 1.0, eps: 0.0, most: f64::INFINITY }
    }
}

setters! {
    TrustRatio:
    /// Sets the factor.
    #[doc(alias = "trust_coefficient")]
    coefficient: f64,
    /// Sets what is added to the length of the update.
    eps: f64,
    /// Sets the largest ratio.
    #[doc(alias = "trust_clip")]
    most: f64,
}

impl TrustRatio {
    pub(super) fn validate(&self) -> Result<(), OptimizerError> {
        at_least_0("trust coefficient", self.coefficient)?;
        at_least_0("eps of the trust ratio", self.eps)?;
        let (what, required, given) = ("largest trust ratio", "above 0", self.most);
        if given as f32 > 0.0 { Ok(()) } else { Err(OptimizerError::Constant { what, required, given }) }
    }

    pub(super) fn added_to(&self, hyper: Hyper) -> Hyper {
        Hyper {
            limit: self.coefficient as f32,
            limit_eps: self.eps as f32,
            limit_most: self.most as f32,
            flags: hyper.flags | TRUST_RATIO,
            ..hyper
        }
    }
}
