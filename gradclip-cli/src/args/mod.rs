//! Options that commands share, and their words.

#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod device;
pub(crate) mod groups;
pub(crate) mod options;
pub(crate) mod precision;
pub(crate) mod rule;
