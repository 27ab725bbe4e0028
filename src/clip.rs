//! What to do with a set of gradients, as plain data.

use crate::error::ClipError;
use crate::layout::{POLICY_NAN, POLICY_SANITIZE, POLICY_SKIP, POLICY_ZERO, Setting};

/// Which norm is compared with the threshold.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum NormType {
    /// Sum of magnitudes.
    One,
    /// Euclidean norm, the usual one.
    #[default]
    Two,
    /// Largest magnitude.
    Inf,
    /// The p-norm for any p above 0; for p below 1 not a norm in the strict sense. 1, 2 and
    /// infinity mean the variants above, which are exact to the bit everywhere; any other p is
    /// summed in floating point relative to the largest element, so that it neither overflows nor
    /// underflows, but is not promised to the bit.
    P(f32),
}

/// What shares one norm and one coefficient.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Scope {
    /// The whole set: one norm over all tensors, as PyTorch's `clip_grad_norm_` and Optax's
    /// `clip_by_global_norm`.
    #[default]
    Global,
    /// Each tensor by itself, as TensorFlow's `clip_by_norm` and Keras' `clipnorm`.
    Tensor,
}

/// What an infinite or NaN element does to its segment. It is always reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum NonFinite {
    /// Gradients keep every bit; the coefficient is 1 and the outcome is flagged as skipped, so
    /// that an optimiser can leave out the step.
    #[default]
    Skip,
    /// All gradients of the segment become 0.
    Zero,
    /// Non-finite elements become 0; the norm is that of the finite ones, which are clipped.
    Sanitize,
    /// All gradients of the segment become NaN, as PyTorch, TensorFlow and Optax do.
    Nan,
}

/// How to clip: norm, scope, threshold, and what surrounds them. The same value drives the GPU and
/// the CPU path.
///
/// ```
/// use gradclip::{Clip, NonFinite, NormType};
///
/// let clip = Clip::global_norm(1.0).norm_type(NormType::Two).on_non_finite(NonFinite::Zero);
/// assert_eq!(clip.threshold, 1.0);
/// assert!(Clip::global_norm(-1.0).validate().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Clip {
    /// Largest norm allowed. 0 makes every gradient 0; infinity only measures.
    pub threshold: f32,
    /// Norm type, L2 unless set.
    pub norm: NormType,
    /// What shares one norm, the whole set unless set.
    pub scope: Scope,
    /// What a non-finite element does.
    pub non_finite: NonFinite,
    /// Gradients are multiplied by this first, in the same passes: 1 / loss scale, or
    /// 1 / accumulation count. 1 unless set.
    pub unscale: f32,
    /// Added to the norm in the quotient threshold / (norm + eps). 0 unless set; PyTorch has 1e-6.
    /// Gradients whose norm does not exceed the threshold are left alone whatever it is.
    pub eps: f32,
}

impl Clip {
    /// Clips the norm of the whole set to `threshold`: where norm > threshold, every gradient is
    /// multiplied by threshold / norm (Pascanu, Mikolov and Bengio 2013, arXiv 1211.5063).
    pub fn global_norm(threshold: f32) -> Clip {
        Clip {
            threshold,
            norm: NormType::Two,
            scope: Scope::Global,
            non_finite: NonFinite::Skip,
            unscale: 1.0,
            eps: 0.0,
        }
    }

    /// Clips the norm of each tensor to `threshold` by itself.
    pub fn per_tensor_norm(threshold: f32) -> Clip {
        Clip { scope: Scope::Tensor, ..Clip::global_norm(threshold) }
    }

    /// Measures the norm of the whole set and changes nothing.
    pub fn measure() -> Clip {
        Clip::global_norm(f32::INFINITY)
    }

    /// PyTorch's eps of 1e-6, with which `torch.nn.utils.clip_grad_norm_` divides: max_norm /
    /// (norm + 1e-6).
    pub const PYTORCH_EPS: f32 = 1e-6;

    /// Global norm clipping with PyTorch's eps. Unlike PyTorch, gradients whose norm does not exceed
    /// the threshold keep every bit.
    ///
    /// ```
    /// use gradclip::{Clip, cpu::{self, GradMut}};
    ///
    /// let mut g = [3.0e-6f32, 4.0e-6];
    /// cpu::clip(&mut [GradMut::new("g", &mut g)], &Clip::pytorch(1e-6))?;
    /// assert!((g[0] / 0.5e-6 - 1.0).abs() < 1e-6); // 3e-6 * 1e-6 / (5e-6 + 1e-6)
    /// # Ok::<(), gradclip::ClipError>(())
    /// ```
    pub fn pytorch(threshold: f32) -> Clip {
        Clip::global_norm(threshold).eps(Clip::PYTORCH_EPS)
    }

    /// Sets the norm type.
    #[must_use]
    pub fn norm_type(self, norm: NormType) -> Clip {
        Clip { norm, ..self }
    }

    /// Sets what a non-finite element does.
    #[must_use]
    pub fn on_non_finite(self, non_finite: NonFinite) -> Clip {
        Clip { non_finite, ..self }
    }

    /// Sets the factor that gradients are multiplied by first.
    #[must_use]
    pub fn unscale(self, unscale: f32) -> Clip {
        Clip { unscale, ..self }
    }

    /// Sets what is added to the norm in the quotient.
    #[must_use]
    pub fn eps(self, eps: f32) -> Clip {
        Clip { eps, ..self }
    }

    /// Checks every field.
    ///
    /// # Errors
    ///
    /// A threshold or eps that is negative or NaN, an infinite eps, an unscale factor that is not
    /// positive and finite, a p that is not above 0.
    pub fn validate(&self) -> Result<(), ClipError> {
        if self.threshold.is_nan() || self.threshold < 0.0 {
            return Err(ClipError::Threshold { given: self.threshold });
        }
        if let NormType::P(p) = self.norm
            && (p.is_nan() || p < f32::MIN_POSITIVE)
        {
            return Err(ClipError::NormType { given: p });
        }
        if !(self.unscale > 0.0 && self.unscale.is_finite()) {
            return Err(ClipError::Unscale { given: self.unscale });
        }
        if !(self.eps >= 0.0 && self.eps.is_finite()) {
            return Err(ClipError::Eps { given: self.eps });
        }
        Ok(())
    }

    /// What each segment is given, once [`Clip::validate`] has passed.
    pub(crate) fn setting(&self) -> Setting {
        Setting {
            // -0 passes validation, and compares as a huge integer.
            threshold: self.threshold.abs(),
            unscale: self.unscale,
            eps: self.eps.abs(),
            policy: match self.non_finite {
                NonFinite::Skip => POLICY_SKIP,
                NonFinite::Zero => POLICY_ZERO,
                NonFinite::Sanitize => POLICY_SANITIZE,
                NonFinite::Nan => POLICY_NAN,
            },
        }
    }
}

/// How a norm is summed: in integers, but for `P`, which holds the bits of p.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    One,
    Two,
    Inf,
    P(u32),
}

impl Kind {
    /// Powers of two by which one step of the exponent moves a sum.
    pub(crate) fn align(self) -> u32 {
        match self {
            Kind::One => 1,
            Kind::Two => 2,
            Kind::Inf | Kind::P(_) => 0,
        }
    }
}

impl From<NormType> for Kind {
    fn from(norm: NormType) -> Kind {
        match norm {
            NormType::One => Kind::One,
            NormType::Two => Kind::Two,
            NormType::Inf => Kind::Inf,
            NormType::P(1.0) => Kind::One,
            NormType::P(2.0) => Kind::Two,
            NormType::P(f32::INFINITY) => Kind::Inf,
            NormType::P(p) => Kind::P(p.to_bits()),
        }
    }
}
