//! What cannot be cut into work for a device.

use crate::tensor::DType;

/// A set of gradients that cannot be cut into chunks, windows and dispatches.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The tensor does not start where its element type may.
    #[error(
        "tensor `{}`: required an offset that is a multiple of {required} ({dtype}), given {given}",
        tensor.escape_debug()
    )]
    Unaligned {
        /// Name of the tensor.
        tensor: String,
        /// Its element type.
        dtype: DType,
        /// Bytes that the offset must be a multiple of.
        required: u64,
        /// Its offset in bytes.
        given: u64,
    },
    /// The tensor ends after its buffer.
    #[error(
        "tensor `{}`: required a buffer of at least {required} bytes, given one of {given}",
        tensor.escape_debug()
    )]
    OutOfRange {
        /// Name of the tensor.
        tensor: String,
        /// Where the tensor ends, rounded up to a whole word.
        required: u128,
        /// Size of the buffer in bytes.
        given: u64,
    },
    /// Two tensors share bytes of one buffer.
    #[error(
        "tensors `{}` and `{}`: required disjoint ranges, both hold byte {at} of the buffer",
        first.escape_debug(),
        second.escape_debug()
    )]
    Overlap {
        /// The tensor that begins first.
        first: String,
        /// The other tensor.
        second: String,
        /// Offset of the first shared byte.
        at: u64,
    },
    /// The tensor's element type is one that adapters have no kernels for.
    #[error(
        "tensor `{}`: required f32, f16 or bf16 on an adapter, given {given}; the CPU path takes it", tensor.escape_debug()
    )]
    DType {
        /// Name of the tensor.
        tensor: String,
        /// Its element type.
        given: DType,
    },
    /// An option is out of its range.
    #[error("{option}: required {required}, given {given}")]
    Option {
        /// Which option.
        option: &'static str,
        /// Its range.
        required: &'static str,
        /// Its value.
        given: u64,
    },
    /// A limit of the device is too small.
    #[error("device limit {limit}: required at least {required}, given {given}")]
    Limit {
        /// Name of the field of [`wgpu::Limits`].
        limit: &'static str,
        /// What is needed.
        required: u64,
        /// What the device has.
        given: u64,
    },
    /// What belongs to a gradient does not fit it.
    #[error("tensor `{}`: required {required} {what}, given {given}", tensor.escape_debug())]
    Operands {
        /// Name of the tensor.
        tensor: String,
        /// What there is a wrong number of.
        what: &'static str,
        /// How many there have to be.
        required: u64,
        /// How many there are.
        given: u64,
    },
    /// More chunks, tensors or segments than 32-bit indices or one binding can hold.
    #[error("{what}: required at most {required}, given {given}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// The most that is possible on this device.
        required: u64,
        /// How many there are.
        given: u64,
    },
}
