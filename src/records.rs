//! Records on the device that a program may bind to shaders of its own, as Rust types and as WGSL.
//!
//! | buffer | holds | written by |
//! |---|---|---|
//! | [`Pass::progress`](crate::Pass::progress) | one [`Progress`]: loss scale, optimiser steps | the apply half |
//! | [`Pass::inputs`](crate::Pass::inputs) | an [`Inputs`]: the loss of a step | the program |
//! | [`Pass::tally`](crate::Pass::tally) | one [`Tally`]: steps so far, segments clipped in the last one | the apply half |
//! | [`Pass::outcomes`](crate::Pass::outcomes) | an [`Outcome`] a segment: norm, coefficient, what was done | the apply half |
//! | [`Pass::segment_sums`](crate::Pass::segment_sums) | a [`Sum`] a segment, for norms over several machines | the norm half |
//! | [`Pass::tensor_sums`](crate::Pass::tensor_sums) | a [`Sum`] a tensor | the norm half |
//! | [`Coalescer::rows`](crate::Coalescer::rows) | words: rows named, entries left out, then the rows | the coalescer |
//!
//! All fields are words of four bytes, in the order of the Rust types, without padding. [`VERSION`] counts the changes
//! of this layout: fields keep their places within one, and a record that grows makes a new version.
//!
//! # In a shader
//!
//! [`wgsl`] gives the declarations, with a prefix for their names. A forward pass that multiplies its loss by the loss
//! scale as it is on the device:
//!
//! ```
//! let shader = gradclip::records::wgsl("Clip") + "
//! @group(0) @binding(0) var<storage, read> progress: ClipProgress;
//! @group(0) @binding(1) var<storage, read_write> loss: array<f32>;
//! @compute @workgroup_size(64)
//! fn scaled(@builtin(global_invocation_id) id: vec3u) {
//!     if (id.x < arrayLength(&loss)) { loss[id.x] *= progress.scale; }
//! }";
//! assert!(shader.contains("const CLIP_SKIPPED: u32 = 8u;"));
//! ```

use crate::layout;

pub use crate::layout::{
    BY_TOTAL, CLAMP, CLIPPED, FILL, GAVE_UP, Inputs, KEEP, LEFT_OUT, LET_THROUGH, MULTIPLY, NAN, NON_FINITE,
    NONE, Outcome, Progress, REASON_ABOVE, REASON_LOSS, REASON_LOSS_NON_FINITE, REASON_NON_FINITE,
    REASON_NORM, SANITIZE, SIGN, SKIPPED, SPIKE, Sum, TOWARD_ZERO, Tally,
};

/// The version of the layout.
pub const VERSION: u32 = 3;

/// What the library's own shaders are given of the records.
const DECLARATIONS: &str = include_str!("../shaders/shared/records.wgsl");

/// Fields that are `f32`: the library's own shaders, which compute with integers, declare their bits.
const FLOATS: [&str; 13] = [
    "loss",
    "norm",
    "threshold",
    "coefficient",
    "scale",
    "rescale",
    "unscale",
    "share",
    "correction",
    "second_correction",
    "mean_correction",
    "momentum_product",
    "gradient_correction",
];

/// The records and their constants as WGSL: `struct {prefix}Outcome`, `const {PREFIX}_CLIPPED` and so on. The prefix is
/// part of an identifier, in the case of types (`Clip`); the empty one leaves names as they are.
pub fn wgsl(prefix: &str) -> String {
    let constant_prefix = if prefix.is_empty() { String::new() } else { prefix.to_uppercase() + "_" };
    let records = ["Inputs", "Outcome", "Progress", "Sum", "Tally"].map(|record| declaration(record, prefix));
    layout::declarations(&constant_prefix, &layout::record_constants()) + &records.concat()
}

/// A record with the types that a reading shader wants: `f32` where the library has bits, and no atomics.
fn declaration(record: &str, prefix: &str) -> String {
    let begin = format!("struct {record} {{\n");
    let fields = DECLARATIONS
        .split_once(&begin)
        .and_then(|(_, rest)| rest.split_once('}'))
        .map_or("", |(fields, _)| fields);
    let field = |line: &str| match line.trim().split_once(": ") {
        Some((name, _)) if FLOATS.contains(&name) => format!("    {name}: f32,\n"),
        _ => format!("{line}\n").replace("atomic<u32>", "u32"),
    };
    format!("\nstruct {prefix}{record} {{\n{}}}\n", fields.lines().map(field).collect::<String>())
}
