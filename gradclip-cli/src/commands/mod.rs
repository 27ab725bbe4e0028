//! A command each.

#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod bench;
pub(crate) mod clip;
#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod devices;
#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod norm;
#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod suggest;
#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod verify;
