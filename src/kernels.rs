//! The registry: a row per kernel, with its WGSL, its bindings and its twin on the CPU.
//!
//! | kernel | WGSL | from | to | CPU twin |
//! |---|---|---|---|---|
//! | `Reduce` | `reduce.wgsl`, `reduce_blocks.wgsl`, `reduce_staying.wgsl`, `reduce_power.wgsl` for any p | gradients | partial of each chunk | `cpu/reduce.rs`, `cpu/power.rs` |
//! | `ReduceShort` | `reduce_short.wgsl` | gradients | partials of short chunks | `cpu/reduce.rs` |
//! | `ReduceUnits` | `reduce_units.wgsl` | gradients | partial of each chunk of short units | `cpu/units.rs` |
//! | `Partials` | `tensors.wgsl` | partials | sum of each tensor, block or unit | `cpu/combine.rs` |
//! | `Sums` | `segments.wgsl` | sums of tensors or blocks | sum of each segment or tensor | `cpu/combine.rs` |
//! | `Threshold` | `threshold.wgsl` | sums, history | threshold of each limit that adapts | `cpu/threshold.rs` |
//! | `Coefficient` | `coefficient.wgsl` | sums, settings | outcome of each segment | `cpu/coefficient.rs` |
//! | `Apply` | `apply.wgsl` | outcomes | gradients, in place | `cpu/apply.rs` |
//! | `ApplyUnits` | `apply_units.wgsl` | outcomes | gradients of tensors cut into units | `cpu/apply.rs` |
//! | `Seams` | `seams.wgsl` | outcomes | words shared by two 16-bit gradients | `cpu/apply.rs` |
//! | `Finish` | `finish.wgsl` | partials, sums, settings, history | for small sets, what `Partials`, `Sums`, `Threshold`, `Coefficient` and `Advance` write | theirs |
//! | `ReduceFinish` | `reduce_finish.wgsl` | the only chunk of a set, settings | what `Reduce` and `Finish` write | theirs |
//! | `Advance` | `advance.wgsl` | tally | loss scale, corrections of the step | `cpu/advance.rs` |
//! | `UpdateSgd`, `UpdateMomentum`, `UpdateAdam` | `update_sgd.wgsl` … | gradients, outcomes | parameters, moments | `cpu/update.rs` |
//! | `Accumulate` | `accumulate.wgsl` | gradients, outcomes | accumulators | `cpu/accumulate.rs` |

/// The texts of files in `shaders/`.
macro_rules! wgsl {
    ($($stem:literal),+ $(,)?) => {
        &[$(include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/", $stem, ".wgsl"))),+]
    };
}

mod finish;
mod form;
mod kernel;
pub mod listing;
mod parts;
mod text;
mod variant;

pub(crate) use form::{Form, Loads};
pub(crate) use kernel::{Binding, Kernel};
pub(crate) use variant::Variant;

#[cfg(test)]
mod tests {
    use naga::valid::{Capabilities, ValidationFlags, Validator};

    use super::*;

    #[test]
    fn every_variant_is_valid_wgsl_without_extensions() {
        for variant in listing::every(256, &[1, 3]) {
            let source = variant.source();
            let module = naga::front::wgsl::parse_str(&source)
                .unwrap_or_else(|error| panic!("{}", error.emit_to_string(&source)));
            let mut validator = Validator::new(ValidationFlags::all(), Capabilities::empty());
            assert!(validator.validate(&module).is_ok(), "{variant:?}");
            assert!(module.entry_points.iter().any(|e| e.name == variant.kernel.entry()));
        }
    }
}
