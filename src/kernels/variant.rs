//! What kernels are compiled for, and what they bind then.

use std::borrow::Cow;

use crate::clip::Kind;
use crate::layout::ADAPT_NONE;
use crate::plan::Pattern;
use crate::tensor::DType;

use super::form::Form;
use super::kernel::{Binding, Kernel};

/// What a kernel is compiled for. Kernels that read no gradients ignore `dtype` and `slots`, all but
/// [`Kernel::Threshold`] and [`Kernel::Finish`] ignore `adapt`, all but the joint ones ignore `pattern`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Variant {
    pub(crate) kernel: Kernel,
    pub(crate) kind: Kind,
    pub(crate) dtype: DType,
    pub(crate) slots: u32,
    pub(crate) workgroup_size: u32,
    /// One of the `ADAPT_` constants.
    pub(crate) adapt: u32,
    /// Where what belongs to a gradient is bound.
    pub(crate) pattern: Pattern,
    /// Whether the unscale factor depends on a loss scale, for kernels that reduce gradients.
    pub(crate) scaled: bool,
    /// For kernels that take whole chunks.
    pub(crate) form: Form,
    /// Whether loss scale or optimiser follow, for kernels that finish.
    pub(crate) advances: bool,
}

impl Variant {
    /// The bindings of group 0 in order.
    pub(crate) fn bindings(&self) -> Cow<'static, [Binding]> {
        match self.kernel {
            kernel if kernel.finishes() => finishing(self).into(),
            other => other.bindings().into(),
        }
    }
}

/// The bindings of group 0 of a kernel that finishes: states and norms last, where thresholds adapt.
fn finishing(variant: &Variant) -> Vec<Binding> {
    use Binding::{Read, ReadWrite, Uniform};
    let partials = if variant.kernel == Kernel::ReduceFinish { ReadWrite } else { Read };
    let mut all =
        vec![Uniform, Uniform, Uniform, Read, partials, ReadWrite, ReadWrite, Read, ReadWrite, ReadWrite];
    all.push(if variant.advances { ReadWrite } else { Uniform });
    if variant.adapt != ADAPT_NONE {
        all.extend([ReadWrite, ReadWrite]);
    }
    all
}
