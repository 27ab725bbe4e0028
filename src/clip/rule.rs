//! What is limited, and what shares one limit.

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
    P(#[cfg_attr(feature = "serde", serde(with = "crate::clip::number"))] f64),
}

/// What is done to a segment, with C the threshold, ‖g‖ the norm of the segment's gradients and n
/// the number of its elements. Nothing is written where the rule already holds.
///
/// | rule | formula | from |
/// |---|---|---|
/// | `Norm` | g · min(1, C / ‖g‖), the same as g / max(1, ‖g‖ / C) | Pascanu, Mikolov and Bengio 2013 (arXiv 1211.5063); in the second form Abadi et al. 2016 (arXiv 1607.00133) |
/// | `Value` | min(max(gᵢ, −C), C) for each element | PyTorch's `clip_grad_value_`, Optax's `clip` |
/// | `Rms` | g · min(1, C / (‖g‖ / √n)) | Adafactor (Shazeer and Stern 2018, arXiv 1804.04235), Optax's `clip_by_block_rms` |
/// | `Average` | g · min(1, C / (‖g‖ / n)) | TensorFlow's `clip_by_average_norm` |
/// | `Agc` | g · min(1, C max(‖p‖, eps) / ‖g‖), p the parameters of the same segment | Brock et al. 2021 (arXiv 2102.06171) |
/// | `Sign` | C sign(gᵢ) where ‖g‖ > C | the rule of signSGD (Bernstein et al. 2018, arXiv 1802.04434), for large gradients only |
/// | `Normalize` | g · C / ‖g‖, also where ‖g‖ < C; zeros stay | normalised gradient descent (Hazan, Levy and Shalev-Shwartz 2015, arXiv 1507.02030) |
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Rule {
    /// The norm is limited.
    #[default]
    Norm,
    /// Each element's magnitude is limited. Infinite elements become ±C and NaN stays NaN, unless a
    /// policy other than [`NonFinite::Keep`] is set. The norm type is infinity.
    Value,
    /// The root mean square is limited.
    Rms,
    /// The norm divided by the number of elements is limited.
    Average,
    /// Adaptive gradient clipping: the norm relative to that of the parameters is limited. As in the
    /// authors' own code, Optax and timm, a norm below 1e-6 counts as 1e-6 in the quotient.
    Agc {
        /// Least norm that parameters are taken to have; 1e-3 in the paper.
        eps: f64,
    },
    /// Where the norm exceeds C, every element becomes C with its own sign; zeros stay.
    Sign,
    /// The norm becomes C.
    Normalize,
}

/// What shares one norm and one coefficient: a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Scope {
    /// The whole set: one norm over all tensors, as PyTorch's `clip_grad_norm_` and Optax's
    /// `clip_by_global_norm`.
    #[default]
    Global,
    /// The tensors of each [`Group`](crate::Group); those without one are a group of their own.
    Group,
    /// Each tensor by itself, as TensorFlow's `clip_by_norm` and Keras' `clipnorm`.
    Tensor,
    /// Each unit of each tensor: a neuron, a filter, a row. Tensors need a shape.
    Unit(Units),
    /// Row i of all tensors together, i counting the first axis, which all tensors have in common:
    /// the gradients of one example (DP-SGD, Abadi et al. 2016), or all attributes of one splat.
    /// Tensors need a shape.
    Row,
}

/// How a tensor is cut into units: which axes one norm sums over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Units {
    /// Over every axis but the first, as timm does for PyTorch's weights, whose first axis counts
    /// outputs. Tensors of rank 0 and 1 are one unit.
    OutputFirst,
    /// Over axis 0 in rank 2 and 3, over axes 0 to 2 in rank 4, 0 to 3 in rank 5: as Optax does for
    /// the weights of Flax and Keras, whose last axis counts outputs. Tensors with at most one axis
    /// longer than 1 are one unit.
    OutputLast,
    /// Over the axes given.
    Over(Axes),
}

impl Units {
    /// Over the axes given, counted from 0, as TensorFlow's `axes` and Optax's `axis`. No axis at all
    /// makes every element a unit.
    pub fn over(axes: &[usize]) -> Units {
        // Axes beyond the last bit fall on it; no tensor has so many, so they are refused.
        Units::Over(Axes(axes.iter().fold(0, |mask, &axis| mask | 1 << axis.min(Axes::MOST))))
    }
}

/// A set of axes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Axes(u32);

impl Axes {
    pub(crate) fn contains(self, axis: usize) -> bool {
        axis < 32 && self.0 >> axis & 1 == 1
    }

    /// Axes from this one on are one, which no tensor has.
    pub(super) const MOST: usize = 31;

    /// Each of them, in order.
    pub(super) fn all(self) -> impl Iterator<Item = usize> {
        (0..32).filter(move |&axis| self.contains(axis))
    }

    /// Rank that a tensor needs at least.
    pub(crate) fn rank(self) -> usize {
        32 - self.0.leading_zeros() as usize
    }
}

/// What an infinite or NaN element does to its segment. It is always reported, and never reaches the
/// history of an adaptive threshold. Under [`Rule::Agc`] one of the parameters counts like one of the
/// gradient.
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
    /// All gradients of the segment become NaN, as TensorFlow's `clip_by_global_norm` has it; so do PyTorch's and Optax' formulas
    /// where an element is NaN. Where one is infinite, these make it NaN and the finite ones 0.
    Nan,
    /// The element is treated by its bits like any other. Only for [`Rule::Value`], whose default it
    /// is.
    Keep,
}
