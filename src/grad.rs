//! Gradients on the GPU: ranges of wgpu buffers. Element types and groups are those of gradients anywhere.

mod sparse;

use crate::error::ClipError;
use crate::tensor::{DType, Group, Precision, TensorInfo};

pub use sparse::SparseGrad;

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
    pub(crate) master: Option<(wgpu::Buffer, u64)>,
    /// Key of what rounds parameters by chance.
    pub(crate) stochastic: Option<u64>,
    /// Buffer and offset of each.
    pub(crate) moments: Vec<(wgpu::Buffer, u64)>,
    pub(crate) accumulator: Option<(wgpu::Buffer, u64)>,
    /// Where its rows are some of a table: rows and width of that, and the list of them.
    pub(crate) of_rows: Option<([u64; 2], wgpu::Buffer)>,
    pub(crate) lr_scale: f64,
    pub(crate) weight_decay: Option<f64>,
    /// Whether the optimiser's limit of updates holds for it.
    pub(crate) limits_update: bool,
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
            master: None,
            stochastic: None,
            moments: Vec::new(),
            accumulator: None,
            of_rows: None,
            lr_scale: 1.0,
            weight_decay: None,
            limits_update: true,
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

    /// Says where the `f32` master of a parameter of 16 bits lies, in the gradient's own shape. A [`Stepper`](crate::Stepper) moves the
    /// master and writes the parameter in the same pass, rounded once to nearest-even (Micikevicius et al. 2018, arXiv 1710.03740).
    /// Without this it allocates masters. A master of 0 begins as its parameter, so that new ones need no copy; other masters
    /// are taken as they are.
    #[must_use]
    pub fn master(self, buffer: &wgpu::Buffer, offset: u64) -> Grad {
        Grad { master: Some((buffer.clone(), offset)), ..self }
    }

    /// Lets a [`Stepper`](crate::Stepper) move a `bf16` parameter without a master, rounded up or down with the probabilities that
    /// keep its mean: 2 bytes an element instead of 6. The random bits are Threefry-2x32-20's (Salmon et al. 2011) for the key `seed + i`, tensor `i`
    /// of the set, so that one seed does for all, and a counter of element and step: the same on every adapter and wherever tensors lie, repeated after 2^32 steps or elements.
    #[must_use]
    pub fn stochastic_rounding(self, seed: u64) -> Grad {
        Grad { stochastic: Some(seed), ..self }
    }

    /// Says where an `f32` state tensor of the optimiser lies, in the gradient's own shape: the momentum,
    /// or the first moment, in a second call the second, and for AMSGrad in a third the largest second one. It holds zeros at first. Without this a
    /// [`Stepper`](crate::Stepper) allocates them.
    #[must_use]
    pub fn moment(mut self, buffer: &wgpu::Buffer, offset: u64) -> Grad {
        self.moments.push((buffer.clone(), offset));
        self
    }

    /// Says where the `f32` accumulator lies that an [`Accumulator`](crate::Accumulator) adds this
    /// gradient to, in its own shape; or where a [`PrivateSum`](crate::PrivateSum) writes what it releases, in that without the first axis.
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

    /// Sets whether the optimiser's limit of updates ([`UpdateLimit`](crate::UpdateLimit), LARS' ratio) holds for this tensor: false,
    /// usually, for biases and norms under LAMB and LARS. True unless set.
    #[must_use]
    pub fn limits_update(self, limits: bool) -> Grad {
        Grad { limits_update: limits, ..self }
    }

    /// Its rows are some of a table, listed there.
    pub(crate) fn of_rows(self, table: [u64; 2], list: &wgpu::Buffer) -> Grad {
        Grad { of_rows: Some((table, list.clone())), ..self }
    }

    /// That its rows are not some of a table.
    pub(crate) fn check_whole(&self, what: &str) -> Result<(), ClipError> {
        let Some(([rows, _], _)) = &self.of_rows else { return Ok(()) };
        let required = format!("a gradient in its parameter's own shape, for {what}");
        let given = format!("rows of a table of {rows}");
        Err(ClipError::Tensor { tensor: self.name.clone(), required, given })
    }

    /// That sums of micro-batches may be made of it.
    pub(crate) fn check_summed(&self) -> Result<(), ClipError> {
        self.check_whole("a sum: put the entries of micro-batches one after the other instead")
    }

    /// The same of the `f32` sum of several, which lies there.
    pub(crate) fn summed_in(&self, buffer: &wgpu::Buffer, offset: u64) -> Grad {
        let elements = Some(self.elements());
        let (buffer, dtype, accumulator) = (buffer.clone(), DType::F32, None);
        Grad { buffer, offset, elements, dtype, accumulator, ..self.clone() }
    }

    /// The tensor's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The element type.
    pub fn element_type(&self) -> DType {
        self.dtype
    }

    /// The name of the group it was put into.
    pub fn group_name(&self) -> Option<&str> {
        self.group.as_ref().map(|group| &*group.name)
    }

    /// The buffer it lies in.
    pub fn buffer(&self) -> &wgpu::Buffer {
        &self.buffer
    }

    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.elements.unwrap_or_else(|| self.buffer.size() / self.dtype.size())
    }

    /// Number of elements of the parameter, and of each moment.
    pub(crate) fn parameter_elements(&self) -> u64 {
        self.of_rows.as_ref().map_or_else(|| self.elements(), |([rows, width], _)| rows * width)
    }

    /// What is known of the parameter, under the gradient's name.
    #[cfg(feature = "checkpoint")]
    pub(crate) fn parameter_info(&self) -> TensorInfo {
        let Some((table, _)) = &self.of_rows else { return self.info() };
        let elements = self.parameter_elements();
        TensorInfo { elements, shape: Some(table.as_slice().into()), ..self.info() }
    }

    /// How a step keeps the parameter.
    pub(crate) fn precision(&self) -> Precision {
        match &self.parameter {
            Some(_) if self.stochastic.is_some() => Precision::Stochastic,
            Some(p) if p.dtype != DType::F32 => Precision::Mixed(p.dtype),
            _ => Precision::Single,
        }
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
