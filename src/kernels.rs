//! The registry: a row per kernel, with its WGSL, its bindings and its twin on the CPU.
//!
//! | kernel | WGSL | from | to | CPU twin |
//! |---|---|---|---|---|
//! | `Reduce` | `reduce.wgsl`, `reduce_blocks.wgsl`, `reduce_staying.wgsl`, `reduce_power.wgsl` for any p | gradients | partial of each chunk | `cpu/reduce.rs`, `cpu/power.rs` |
//! | `ReduceShort` | `reduce_short.wgsl` | gradients | partials of short chunks | `cpu/reduce.rs` |
//! | `ReduceUnits` | `reduce_units.wgsl` | gradients | partial of each chunk of short units | `cpu/units.rs` |
//! | `Partials` | `tensors.wgsl` | partials | sum of each tensor, block or unit | `cpu/combine.rs` |
//! | `Sums` | `segments.wgsl` | sums of tensors or blocks | sum of each segment or tensor | `cpu/combine.rs` |
//! | `Threshold` | `threshold.wgsl` | sums, history | threshold of each limit that adapts | `cpu/threshold.rs` |
//! | `Coefficient` | `coefficient.wgsl` | sums, settings | outcome of each segment | `cpu/coefficient.rs` |
//! | `Apply` | `apply.wgsl` | outcomes | gradients, in place | `cpu/apply.rs` |
//! | `ApplyUnits` | `apply_units.wgsl` | outcomes | gradients of tensors cut into units | `cpu/apply.rs` |
//! | `Seams` | `seams.wgsl` | outcomes | words shared by two 16-bit gradients | `cpu/apply.rs` |
//! | `Finish` | `finish.wgsl` | partials, sums, settings, history | for small sets, what `Partials`, `Sums`, `Threshold`, `Coefficient` and `Advance` write | theirs |
//! | `ReduceFinish` | `reduce_finish.wgsl` | the only chunk of a set, settings | what `Reduce` and `Finish` write | theirs |
//! | `Advance` | `advance.wgsl` | tally | loss scale, corrections of the step | `cpu/advance.rs` |
//! | `UpdateSgd`, `UpdateMomentum`, `UpdateAdam` | `update_sgd.wgsl` … | gradients, outcomes | parameters, moments | `cpu/update.rs` |
//! | `Accumulate` | `accumulate.wgsl` | gradients, outcomes | accumulators | `cpu/accumulate.rs` |

/// The texts of files in `shaders/`.
macro_rules! wgsl {
    ($($stem:literal),+ $(,)?) => {
        &[$(include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/", $stem, ".wgsl"))),+]
    };
}

mod finish;
mod form;
pub mod listing;
mod parts;
mod text;

use std::borrow::Cow;

use crate::clip::Kind;
use crate::plan::Pattern;
use crate::tensor::DType;

pub(crate) use form::{FORMS, Form, Loads};

/// A kernel; see the module's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kernel {
    Reduce,
    ReduceShort,
    ReduceUnits,
    Partials,
    Sums,
    Threshold,
    Coefficient,
    Finish,
    ReduceFinish,
    Apply,
    ApplyUnits,
    Seams,
    Advance,
    UpdateSgd,
    UpdateMomentum,
    UpdateAdam,
    Accumulate,
}

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

/// How a buffer of bind group 0 is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Binding {
    Uniform,
    Read,
    ReadWrite,
}

impl Kernel {
    /// Stem of the file in `shaders/`; also the debug label.
    pub(crate) fn stem(self) -> &'static str {
        match self {
            Kernel::Reduce => "reduce",
            Kernel::ReduceShort => "reduce_short",
            Kernel::ReduceUnits => "reduce_units",
            Kernel::Partials => "tensors",
            Kernel::Sums => "segments",
            Kernel::Threshold => "threshold",
            Kernel::Coefficient => "coefficient",
            Kernel::Finish => "finish",
            Kernel::ReduceFinish => "reduce_finish",
            Kernel::Apply => "apply",
            Kernel::ApplyUnits => "apply_units",
            Kernel::Seams => "seams",
            Kernel::Advance => "advance",
            Kernel::UpdateSgd => "update_sgd",
            Kernel::UpdateMomentum => "update_momentum",
            Kernel::UpdateAdam => "update_adam",
            Kernel::Accumulate => "accumulate",
        }
    }

    /// Name of the entry point.
    pub(crate) fn entry(self) -> &'static str {
        match self {
            Kernel::Partials | Kernel::Sums => "combine",
            Kernel::ReduceFinish => Kernel::Finish.entry(),
            joint if joint.is_joint() => "joint",
            other => other.stem(),
        }
    }

    /// The bindings of group 0 in order, but for kernels that finish, whose depend on the variant.
    fn bindings(self) -> &'static [Binding] {
        use Binding::{Read, ReadWrite, Uniform};
        match self {
            Kernel::Reduce | Kernel::ReduceShort | Kernel::ReduceUnits => {
                &[Uniform, Read, ReadWrite, Uniform]
            }
            Kernel::Finish | Kernel::ReduceFinish => &[],
            Kernel::Partials => &[Uniform, Read, Read, ReadWrite, ReadWrite, ReadWrite],
            Kernel::Sums => &[Uniform, Read, Read, ReadWrite],
            Kernel::Threshold => &[Uniform, Uniform, Read, Read, ReadWrite, ReadWrite, ReadWrite, Uniform],
            Kernel::Coefficient => &[Uniform, Read, Read, Read, ReadWrite, ReadWrite, ReadWrite, Uniform],
            Kernel::Apply | Kernel::Seams => &[Uniform, Read, Read],
            Kernel::ApplyUnits => &[Uniform, Read, Read, Uniform],
            Kernel::Advance => &[Uniform, Uniform, ReadWrite, ReadWrite],
            Kernel::UpdateSgd | Kernel::UpdateMomentum | Kernel::UpdateAdam | Kernel::Accumulate => {
                &[Uniform, Uniform, Uniform, Read, Read, Read]
            }
        }
    }

    /// Whether its text depends on the norm.
    pub(crate) fn has_norm(self) -> bool {
        matches!(
            self,
            Kernel::Reduce
                | Kernel::ReduceShort
                | Kernel::ReduceUnits
                | Kernel::Partials
                | Kernel::Sums
                | Kernel::Threshold
                | Kernel::Coefficient
                | Kernel::Finish
                | Kernel::ReduceFinish
        )
    }

    /// Whether it works on gradients together with what belongs to them.
    pub(crate) fn is_joint(self) -> bool {
        matches!(self, Kernel::UpdateSgd | Kernel::UpdateMomentum | Kernel::UpdateAdam | Kernel::Accumulate)
    }

    /// How the gradients in group 1 are bound, for kernels that touch them.
    pub(crate) fn slots(self) -> Option<Binding> {
        match self {
            reduces if reduces.reduces() => Some(Binding::Read),
            Kernel::Apply | Kernel::ApplyUnits | Kernel::Seams => Some(Binding::ReadWrite),
            // One buffer may hold gradients too, and cannot be bound in two ways at once.
            joint if joint.is_joint() => Some(Binding::ReadWrite),
            _ => None,
        }
    }

    /// Whether it reads gradients chunk by chunk.
    pub(crate) fn reduces(self) -> bool {
        matches!(self, Kernel::Reduce | Kernel::ReduceShort | Kernel::ReduceUnits | Kernel::ReduceFinish)
    }

    /// Whether it does what lies between partials and gradients.
    pub(crate) fn finishes(self) -> bool {
        matches!(self, Kernel::Finish | Kernel::ReduceFinish)
    }

    /// Whether it leaves out segments from `Job::until` on.
    pub(crate) fn leaves_out(self) -> bool {
        self.reduces() || self.finishes() || self == Kernel::Coefficient
    }
}

impl Variant {
    /// The bindings of group 0 in order.
    pub(crate) fn bindings(&self) -> Cow<'static, [Binding]> {
        match self.kernel {
            kernel if kernel.finishes() => finish::bindings(self).into(),
            other => other.bindings().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use naga::valid::{Capabilities, ValidationFlags, Validator};

    use super::*;

    #[test]
    fn every_variant_is_valid_wgsl_without_extensions() {
        for variant in listing::every(256, &[1, 3]) {
            let source = variant.source();
            let module = naga::front::wgsl::parse_str(&source)
                .unwrap_or_else(|error| panic!("{}", error.emit_to_string(&source)));
            let mut validator = Validator::new(ValidationFlags::all(), Capabilities::empty());
            assert!(validator.validate(&module).is_ok(), "{variant:?}");
            assert!(module.entry_points.iter().any(|e| e.name == variant.kernel.entry()));
        }
    }
}
