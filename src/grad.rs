//! Gradients: ranges of wgpu buffers, and slices or views of host memory.

use std::fmt;
use std::sync::Arc;

use crate::segments::TensorInfo;

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

/// Where the parameters lie whose gradient a tensor is, for adaptive gradient clipping.
#[derive(Clone, Debug)]
pub(crate) struct Parameter {
    pub(crate) buffer: wgpu::Buffer,
    pub(crate) offset: u64,
    pub(crate) dtype: DType,
}

/// One gradient tensor on the GPU: a range of a buffer. Many may share one buffer, as long as
/// their ranges do not overlap.
#[derive(Clone, Debug)]
pub struct Grad {
    pub(crate) name: String,
    pub(crate) buffer: wgpu::Buffer,
    pub(crate) offset: u64,
    /// As many as the buffer holds from the offset on, where there is no number.
    elements: Option<u64>,
    pub(crate) dtype: DType,
    pub(crate) shape: Option<Box<[u64]>>,
    pub(crate) group: Option<Group>,
    pub(crate) parameter: Option<Parameter>,
    /// Buffer and offset of each.
    pub(crate) moments: Vec<(wgpu::Buffer, u64)>,
    pub(crate) accumulator: Option<(wgpu::Buffer, u64)>,
    pub(crate) lr_scale: f64,
    pub(crate) weight_decay: Option<f64>,
}

impl Grad {
    /// The whole of a buffer: of `f32`, unless [`Grad::dtype`] says otherwise. A rest of fewer bytes than
    /// an element has is left out.
    pub fn new(name: impl Into<String>, buffer: &wgpu::Buffer) -> Grad {
        Grad { elements: None, ..Grad::range(name, buffer, 0, 0) }
    }

    /// `elements` elements of `f32` from byte `offset`.
    pub fn range(name: impl Into<String>, buffer: &wgpu::Buffer, offset: u64, elements: u64) -> Grad {
        Grad {
            name: name.into(),
            buffer: buffer.clone(),
            offset,
            elements: Some(elements),
            dtype: DType::F32,
            shape: None,
            group: None,
            parameter: None,
            moments: Vec::new(),
            accumulator: None,
            lr_scale: 1.0,
            weight_decay: None,
        }
    }

    /// Sets the element type. The number of elements given to [`Grad::range`] stays; [`Grad::new`] means
    /// the whole buffer, whatever its type.
    #[must_use]
    pub fn dtype(self, dtype: DType) -> Grad {
        Grad { dtype, ..self }
    }

    /// Sets the shape, row-major, for scopes that cut tensors into units or rows. Its product must be
    /// the number of elements.
    #[must_use]
    pub fn shape(self, shape: &[u64]) -> Grad {
        Grad { shape: Some(shape.into()), ..self }
    }

    /// Puts the tensor into a group.
    #[must_use]
    pub fn group(self, group: &Group) -> Grad {
        Grad { group: Some(group.clone()), ..self }
    }

    /// Says where the parameters lie that this is the gradient of, from byte `offset` of `buffer` in
    /// the gradient's own shape. [`Rule::Agc`](crate::Rule::Agc) reads them, a [`Stepper`](crate::Stepper)
    /// moves them.
    #[must_use]
    pub fn parameter(self, buffer: &wgpu::Buffer, offset: u64, dtype: DType) -> Grad {
        Grad { parameter: Some(Parameter { buffer: buffer.clone(), offset, dtype }), ..self }
    }

    /// Says where an `f32` state tensor of the optimiser lies, in the gradient's own shape: the momentum,
    /// or the first moment and, in a second call, the second. It holds zeros at first. Without this a
    /// [`Stepper`](crate::Stepper) allocates them.
    #[must_use]
    pub fn moment(mut self, buffer: &wgpu::Buffer, offset: u64) -> Grad {
        self.moments.push((buffer.clone(), offset));
        self
    }

    /// Says where the `f32` accumulator lies that an [`Accumulator`](crate::Accumulator) adds this
    /// gradient to, in its own shape.
    #[must_use]
    pub fn accumulator(self, buffer: &wgpu::Buffer, offset: u64) -> Grad {
        Grad { accumulator: Some((buffer.clone(), offset)), ..self }
    }

    /// Sets a factor of the learning rate for this tensor. 1 unless set.
    #[must_use]
    pub fn lr_scale(self, factor: f64) -> Grad {
        Grad { lr_scale: factor, ..self }
    }

    /// Sets a weight decay for this tensor: 0, usually, for biases and norms. That of the optimiser
    /// unless set.
    #[must_use]
    pub fn weight_decay(self, weight_decay: f64) -> Grad {
        Grad { weight_decay: Some(weight_decay), ..self }
    }

    /// The tensor's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The buffer it lies in.
    pub fn buffer(&self) -> &wgpu::Buffer {
        &self.buffer
    }

    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.elements.unwrap_or_else(|| self.buffer.size() / self.dtype.size())
    }

    /// What is known of it before anything is measured.
    pub(crate) fn info(&self) -> TensorInfo {
        TensorInfo {
            name: self.name.as_str().into(),
            dtype: self.dtype,
            elements: self.elements(),
            shape: self.shape.clone(),
            group: self.group.clone(),
            has_parameter: self.parameter.is_some(),
        }
    }
}
