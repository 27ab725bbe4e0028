//! The command line `gradclip`, and what of it does without files: [`clip_in_memory`], for pages that clip what is dropped on them.
#![cfg_attr(
    target_arch = "wasm32",
    allow(dead_code, reason = "pages have no files, devices of sessions or shells")
)]

mod args;
mod commands;
mod failure;
mod in_memory;
mod input;
mod job;
mod output;
#[cfg(not(target_arch = "wasm32"))]
mod plot;
#[cfg(not(target_arch = "wasm32"))]
mod program;
#[cfg(not(target_arch = "wasm32"))]
mod progress;
mod summary;
mod text;

pub use in_memory::{ClippedFile, Refused, clip_in_memory};
#[cfg(not(target_arch = "wasm32"))]
pub use program::run;
