//! What pictures share: axes, and how things are drawn.

pub(crate) mod axis;
pub(crate) mod style;
