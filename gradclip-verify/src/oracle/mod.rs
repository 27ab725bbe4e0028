//! What should become of a case, in `f64`.

pub(crate) mod decision;
pub mod exact;
pub(crate) mod in_f64;
pub(crate) mod optimizer;
pub mod plain;
