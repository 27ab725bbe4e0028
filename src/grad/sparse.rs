//! Sparse gradients on the GPU: entries of rows of a table.

use crate::tensor::DType;

/// The gradient of a table of which a step names some rows, such as an embedding: entries of a row index and the row's values, in
/// any order, indices as often as they come. PyTorch's `sparse=True` and TensorFlow's `IndexedSlices` are such gradients.
///
/// `indices` holds a `u32` an entry, `values` the `width` elements of one entry after the other: [entries, width], row-major. How
/// many entries hold may be known on the device only: [`SparseGrad::count`].
///
/// What an entry beyond the table does, a host that waits for nothing cannot see: see [`Coalescer`](crate::Coalescer).
#[derive(Clone, Debug)]
pub struct SparseGrad {
    pub(crate) name: String,
    pub(crate) indices: (wgpu::Buffer, u64),
    pub(crate) values: (wgpu::Buffer, u64),
    pub(crate) count: Option<(wgpu::Buffer, u64)>,
    pub(crate) entries: u64,
    pub(crate) dtype: DType,
    pub(crate) table: [u64; 2],
}

impl SparseGrad {
    /// At most `entries` entries of a table of the shape [rows, width], from the beginning of both buffers: values of `f32`, unless
    /// [`SparseGrad::dtype`] says otherwise.
    pub fn new(
        name: impl Into<String>,
        indices: &wgpu::Buffer,
        values: &wgpu::Buffer,
        entries: u64,
        table: [u64; 2],
    ) -> SparseGrad {
        SparseGrad {
            name: name.into(),
            indices: (indices.clone(), 0),
            values: (values.clone(), 0),
            count: None,
            entries,
            dtype: DType::F32,
            table,
        }
    }

    /// Sets the first byte of indices and of values, which may lie in one buffer.
    #[must_use]
    pub fn offsets(mut self, indices: u64, values: u64) -> SparseGrad {
        (self.indices.1, self.values.1) = (indices, values);
        self
    }

    /// Sets the element type of values. Sums are of `f32`.
    #[must_use]
    pub fn dtype(self, dtype: DType) -> SparseGrad {
        SparseGrad { dtype, ..self }
    }

    /// Says where a `u32` lies, from byte `offset` of `buffer`, that says how many entries hold, the first of them. It is read in every
    /// step.
    #[must_use]
    pub fn count(self, buffer: &wgpu::Buffer, offset: u64) -> SparseGrad {
        SparseGrad { count: Some((buffer.clone(), offset)), ..self }
    }

    /// The tensor's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}
