//! How kernels are written for a device.

use crate::clip::Kind;

use super::kernel::Kernel;

/// How a kernel reads gradients chunk by chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Loads {
    /// As software adapters do it fastest: few loads and little code at a time.
    #[default]
    Few,
    /// All loads of a turn in flight, word by word.
    Words,
    /// All loads of a turn in flight, by whole vectors.
    Vectors,
}

/// What a kernel that takes whole chunks is written for. Every form has the same bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Form {
    pub(crate) loads: Loads,
    /// Whether a product of 32-bit words is as fast as one of 24 bits.
    pub(crate) full_multiply: bool,
    /// Whether workgroups stay for more than one chunk.
    pub(crate) stays: bool,
}

/// The forms that there are.
pub(crate) const FORMS: [Form; 9] = {
    let few = Form { loads: Loads::Few, full_multiply: false, stays: false };
    let words = Form { loads: Loads::Words, ..few };
    let vectors = Form { loads: Loads::Vectors, ..few };
    [
        few,
        vectors,
        words,
        Form { full_multiply: true, ..vectors },
        Form { full_multiply: true, ..words },
        Form { stays: true, ..vectors },
        Form { stays: true, ..words },
        Form { full_multiply: true, stays: true, ..vectors },
        Form { full_multiply: true, stays: true, ..words },
    ]
};

impl Kernel {
    /// The form in which it exists nearest to the one wanted.
    pub(crate) fn form(self, kind: Kind, wanted: Form) -> Form {
        match (self, kind) {
            (Kernel::Reduce, Kind::Two) if wanted.loads != Loads::Few => wanted,
            (Kernel::Reduce, Kind::One | Kind::Inf) if wanted.loads != Loads::Few => {
                Form { full_multiply: false, ..wanted }
            }
            (joint, _) if joint.is_joint() && wanted.loads != Loads::Few => {
                Form { loads: Loads::Words, ..Form::default() }
            }
            (Kernel::ReduceUnits, Kind::P(_)) => Form::default(),
            (reduces, _) if reduces.reduces() && wanted.loads != Loads::Few => {
                Form { loads: Loads::Words, ..Form::default() }
            }
            (Kernel::Apply, _) => Form { loads: wanted.loads, ..Form::default() },
            (Kernel::ApplyUnits, _) if wanted.loads != Loads::Few => {
                Form { loads: Loads::Words, ..Form::default() }
            }
            _ => Form::default(),
        }
    }

    /// Whether it has sixteen elements of an invocation in flight, each by its own word.
    pub(crate) fn has_quads(self, kind: Kind, form: Form) -> bool {
        let by_quads = matches!(
            (self, kind),
            (Kernel::ReduceShort | Kernel::ReduceUnits, _)
                | (Kernel::Reduce | Kernel::ReduceFinish, Kind::P(_))
        );
        by_quads && form.loads != Loads::Few
    }
}
