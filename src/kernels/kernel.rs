//! Kernels, and what they bind.

/// A kernel; see the table of [`super`].
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
    pub(super) fn bindings(self) -> &'static [Binding] {
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
