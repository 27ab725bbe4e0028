//! A training run as it is saved: a safetensors file with names that users of PyTorch know.

mod file;
mod form;
mod saved;

pub(crate) use form::{Form, Part, Role};
pub use saved::Checkpoint;
