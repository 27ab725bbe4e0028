//! What kernels are compiled for.

use crate::clip::Summation;
use crate::plan::Pattern;
use crate::tensor::DType;

use super::form::Form;
use super::kernel::Kernel;

/// What a kernel is compiled for. Kernels that read no gradients ignore `dtype` and `slots`, all but those whose row
/// names rules ignore `adapt`, all but the fused ones ignore `pattern`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Variant {
    pub(crate) kernel: Kernel,
    pub(crate) summation: Summation,
    pub(crate) dtype: DType,
    pub(crate) slots: u32,
    pub(crate) workgroup_size: u32,
    /// One of the `ADAPT_` constants.
    pub(crate) adapt: u32,
    /// Where the operands are bound.
    pub(crate) pattern: Pattern,
    /// Whether the unscale factor depends on a loss scale, for kernels that reduce gradients.
    pub(crate) scaled: bool,
    /// For kernels that take whole chunks.
    pub(crate) form: Form,
    /// Whether loss scale or optimiser follow, for kernels that finish.
    pub(crate) advances: bool,
}
