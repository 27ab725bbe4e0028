//! Where tensors lie.

use crate::tensor::{DType, Group, TensorInfo};

/// Where one tensor lies.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Placement {
    /// Name of the tensor, for errors.
    pub name: String,
    /// Number of the buffer; equal numbers mean the same buffer.
    pub buffer: usize,
    /// Size of that buffer in bytes.
    pub buffer_size: u64,
    /// First byte of the tensor.
    pub offset: u64,
    /// Number of elements; 0 is fine.
    pub elements: u64,
    /// Element type.
    pub dtype: DType,
    /// Shape, row-major, where the clip needs it.
    pub shape: Option<Box<[u64]>>,
    /// Group, if it has one.
    pub group: Option<Group>,
    /// Where its parameters lie, in the same shape, if the clip needs them.
    pub parameter: Option<Box<Placement>>,
}

impl Placement {
    pub(super) fn info(&self) -> TensorInfo {
        TensorInfo {
            name: self.name.as_str().into(),
            dtype: self.dtype,
            elements: self.elements,
            shape: self.shape.clone(),
            group: self.group.clone(),
            has_parameter: self.parameter.is_some(),
        }
    }
}
