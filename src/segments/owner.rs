//! Which segments a tensor belongs to.

use super::view::UnitView;

/// Which segments a tensor belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    One(u32),
    /// Unit `u` belongs to segment `first + u`.
    Units {
        first: u32,
        view: UnitView,
    },
}

impl Owner {
    /// The same, `by` segments further.
    pub(crate) fn shifted(self, by: u32) -> Owner {
        match self {
            Owner::One(segment) => Owner::One(segment + by),
            Owner::Units { first, view } => Owner::Units { first: first + by, view },
        }
    }

    /// Its first segment.
    pub(crate) fn first(self) -> u32 {
        match self {
            Owner::One(segment) => segment,
            Owner::Units { first, .. } => first,
        }
    }
}
