//! A command each.

pub(crate) mod bench;
pub(crate) mod clip;
pub(crate) mod devices;
pub(crate) mod norm;
pub(crate) mod suggest;
pub(crate) mod verify;
