//! What is known of a tensor before anything is measured: its element type, its group, its form.

use std::fmt;
use std::sync::Arc;

/// Element type of a gradient.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum DType {
    /// 32-bit IEEE float.
    #[default]
    F32,
    /// 16-bit IEEE float.
    F16,
    /// The upper half of an `f32`.
    Bf16,
    /// 64-bit IEEE float, on the CPU path alone: adapters refuse it.
    F64,
}

impl DType {
    /// Bytes of one element.
    pub fn size(self) -> u64 {
        match self {
            DType::F64 => 8,
            DType::F32 => 4,
            DType::F16 | DType::Bf16 => 2,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::Bf16 => "bf16",
            DType::F64 => "f64",
        })
    }
}

/// Tensors with a limit of their own, as the parameter groups of PyTorch's optimisers, or with none. Equal
/// names mean the same group.
///
/// Under [`Scope::Group`](crate::Scope::Group) the tensors of a group share one norm. Under
/// [`Scope::Tensor`](crate::Scope::Tensor) and [`Scope::Unit`](crate::Scope::Unit) the group's threshold
/// is that of each of its tensors and units: C of the [`Rule`](crate::Rule), whatever rule it is. Under
/// [`Scope::Global`](crate::Scope::Global) and [`Scope::Row`](crate::Scope::Row) tensors of several groups
/// would share one norm, so there a group with a threshold is refused where the clip is prepared. An
/// excluded group means the same everywhere.
///
/// ```
/// use gradclip::{Clip, Group, cpu::{self, GradMut}};
///
/// let (mut embedding, mut head, mut bias) = ([3.0f32, 4.0], [0.3f32, 0.4], [100.0f32]);
/// let [small, free] = [Group::new("embeddings", 0.5), Group::excluded("biases")];
/// let mut grads = [
///     GradMut::new("embedding", &mut embedding).group(&small),
///     GradMut::new("head", &mut head), // without a group: the clip's own threshold
///     GradMut::new("bias", &mut bias).group(&free),
/// ];
/// cpu::clip(&mut grads, &Clip::per_group_norm(1.0))?;
/// assert_eq!((embedding, head, bias), ([0.3, 0.4], [0.3, 0.4], [100.0]));
/// # Ok::<(), gradclip::ClipError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    pub(crate) name: Arc<str>,
    pub(crate) threshold: Option<f64>,
}

impl Group {
    /// A group with a threshold of its own.
    pub fn new(name: impl Into<Arc<str>>, threshold: impl Into<f64>) -> Group {
        Group { name: name.into(), threshold: Some(threshold.into()) }
    }

    /// Tensors that are measured and unscaled but never clipped, in every scope and under every rule:
    /// they have no part in any norm but their own, nor in [`Clip::total`](crate::Clip), and need neither a
    /// shape nor a parameter.
    ///
    /// In a step their parameters move like those of others, by gradients that are not clipped.
    ///
    /// ```
    /// use gradclip::{Clip, Group, cpu::{self, GradMut}};
    ///
    /// let (mut weight, mut bias) = ([30.0f32, 40.0], [100.0f32]);
    /// let mut grads = [
    ///     GradMut::new("weight", &mut weight),
    ///     GradMut::new("bias", &mut bias).group(&Group::excluded("biases")),
    /// ];
    /// let report = cpu::clip(&mut grads, &Clip::global_norm(5.0))?;
    /// assert_eq!(report.norm(), Some(50.0));
    /// assert_eq!((weight, bias), ([3.0, 4.0], [100.0]));
    /// # Ok::<(), gradclip::ClipError>(())
    /// ```
    pub fn excluded(name: impl Into<Arc<str>>) -> Group {
        Group { name: name.into(), threshold: None }
    }
}

/// What is known of a tensor before anything is measured.
#[derive(Clone, Debug)]
pub(crate) struct TensorInfo {
    pub(crate) name: Arc<str>,
    pub(crate) dtype: DType,
    pub(crate) elements: u64,
    pub(crate) shape: Option<Box<[u64]>>,
    pub(crate) group: Option<Group>,
    pub(crate) has_parameter: bool,
}

impl TensorInfo {
    /// Whether its group is excluded.
    pub(crate) fn excluded(&self) -> bool {
        self.group.as_ref().is_some_and(|g| g.threshold.is_none())
    }
}

/// How a parameter is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// As `f32` alone. Accumulators are kept so.
    #[default]
    Single,
    /// As `f32`, its master, and rounded to nearest in this type of 16 bits.
    Mixed(DType),
    /// As `bf16` alone, rounded by chance.
    Stochastic,
}

impl Precision {
    /// The type of the parameter's elements of 16 bits, where it has some.
    pub(crate) fn half(self) -> Option<DType> {
        match self {
            Precision::Single => None,
            Precision::Mixed(dtype) => Some(dtype),
            Precision::Stochastic => Some(DType::Bf16),
        }
    }

    /// Which operand has 16 bits, of so many.
    pub(crate) fn half_operand(self, operands: usize) -> Option<usize> {
        match self {
            Precision::Single => None,
            Precision::Mixed(_) => Some(operands - 1),
            Precision::Stochastic => Some(1),
        }
    }
}
