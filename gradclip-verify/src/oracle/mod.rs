//! What should become of gradients, in `f64` and in exact integers.

pub(crate) mod decision;
pub mod exact;
pub(crate) mod in_f64;
pub mod near;
pub mod optimizer;
pub mod plain;
mod ratios;
pub mod segments;
pub mod skips;
pub mod thresholds;
