//! Gradients: ranges of wgpu buffers, and slices or views of host memory.

use std::fmt;

/// Element type of a gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum DType {
    /// 32-bit IEEE float.
    F32,
    /// 16-bit IEEE float.
    F16,
    /// The upper half of an `f32`.
    Bf16,
}

impl DType {
    /// Bytes of one element.
    pub fn size(self) -> u64 {
        match self {
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
        })
    }
}

/// One gradient tensor on the GPU: a range of a buffer. Many may share one buffer, as long as
/// their ranges do not overlap.
#[derive(Clone, Debug)]
pub struct Grad {
    pub(crate) name: String,
    pub(crate) buffer: wgpu::Buffer,
    pub(crate) offset: u64,
    pub(crate) elements: u64,
    pub(crate) dtype: DType,
}

impl Grad {
    /// The whole of a buffer of `f32`. A rest of fewer than 4 bytes is left out.
    pub fn new(name: impl Into<String>, buffer: &wgpu::Buffer) -> Grad {
        Grad::range(name, buffer, 0, buffer.size() / 4)
    }

    /// `elements` elements of `f32` from byte `offset`.
    pub fn range(name: impl Into<String>, buffer: &wgpu::Buffer, offset: u64, elements: u64) -> Grad {
        Grad { name: name.into(), buffer: buffer.clone(), offset, elements, dtype: DType::F32 }
    }

    /// Sets the element type; the number of elements stays.
    #[must_use]
    pub fn dtype(self, dtype: DType) -> Grad {
        Grad { dtype, ..self }
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
        self.elements
    }
}
