//! Which files of `shaders/` make a kernel.

use crate::clip::Kind;
use crate::tensor::DType;

use super::finish;
use super::form::Loads;
use super::kernel::{Binding, Kernel};
use super::variant::Variant;

const REDUCE: &[&str] = wgsl!["shared/wide", "shared/element", "shared/real", "shared/unscale"];
const APPLY: &[&str] = wgsl!["shared/wide", "shared/element", "shared/real", "shared/apply"];
const DECIDE: &[&str] =
    wgsl!["shared/wide", "shared/element", "shared/real", "shared/decide", "shared/unscale", "shared/step"];
const COMBINE: &[&str] =
    wgsl!["shared/wide", "shared/limbs", "shared/combine", "shared/combine_integer", "shared/combine_grid"];
const COMBINE_POWER: &[&str] =
    wgsl!["shared/power", "shared/lanes", "shared/combine", "shared/combine_power", "shared/combine_grid"];

impl Variant {
    /// The texts in order, without the constants.
    pub(super) fn parts(&self) -> Vec<&'static str> {
        let mut parts = Vec::new();
        if let Some(access) = self.kernel.slots() {
            parts.push(elements(self.dtype));
            if access == Binding::ReadWrite {
                parts.push(applied_elements(self.dtype));
            }
        }
        parts.extend_from_slice(wgsl!["shared/records"]);
        match self.kernel {
            Kernel::Reduce | Kernel::ReduceShort | Kernel::ReduceUnits => {
                parts.extend_from_slice(REDUCE);
                parts.extend(self.reducing());
            }
            Kernel::Partials | Kernel::Sums => parts.extend(self.combining()),
            Kernel::Threshold | Kernel::Coefficient | Kernel::Advance => parts.extend(self.deciding()),
            Kernel::Finish => parts.extend(finish::parts(self)),
            Kernel::ReduceFinish => {
                parts.extend(finish::parts(self));
                parts.extend(self.sums_of_chunks());
                parts.extend_from_slice(wgsl!["reduce_finish"]);
            }
            Kernel::Apply | Kernel::ApplyUnits | Kernel::Seams => {
                parts.extend_from_slice(APPLY);
                parts.extend(self.applying());
            }
            Kernel::UpdateSgd | Kernel::UpdateMomentum | Kernel::UpdateAdam | Kernel::Accumulate => {
                parts.extend_from_slice(APPLY);
                parts.extend(self.joining());
            }
        }
        parts
    }

    fn reducing(&self) -> Vec<&'static str> {
        let any_p = matches!(self.kind, Kind::P(_));
        let quads = if self.kernel.has_quads(self.kind, self.form) { quads(self.dtype) } else { Vec::new() };
        let own: &[&str] = match (self.kernel, self.form.loads) {
            (Kernel::ReduceShort, Loads::Few) => wgsl![
                "shared/reduce_tables",
                "shared/chunk",
                "shared/seen",
                "shared/teams",
                "shared/short_each",
                "reduce_short"
            ],
            (Kernel::ReduceShort, _) => wgsl![
                "shared/reduce_tables",
                "shared/chunk",
                "shared/quads_of_chunk",
                "shared/teams",
                "shared/short_quads",
                "reduce_short"
            ],
            (Kernel::ReduceUnits, _) if any_p => {
                wgsl!["shared/power", "shared/unit_power", "shared/units_alone", "reduce_units"]
            }
            (Kernel::ReduceUnits, Loads::Few) => {
                wgsl!["shared/column", "shared/unit_integer", "shared/units_alone", "reduce_units"]
            }
            (Kernel::ReduceUnits, _) => {
                wgsl!["shared/column", "shared/teams", "shared/units_by_teams", "reduce_units"]
            }
            _ => return self.reducing_chunks(),
        };
        [wgsl!["shared/largest"], &quads[..], own].concat()
    }

    /// A workgroup a chunk.
    fn reducing_chunks(&self) -> Vec<&'static str> {
        let power: &[&str] = match self.kind {
            Kind::P(_) => wgsl!["shared/power", "shared/lanes"],
            _ => &[],
        };
        let entry: &[&str] = match self.form.stays {
            true => wgsl!["shared/reduce_tables", "reduce_staying"],
            false => wgsl!["shared/reduce_tables", "shared/reduce_entry"],
        };
        [power, &self.sums_of_chunks(), entry].concat()
    }

    /// How a workgroup adds up a chunk, and where the kernel does not say otherwise, what it does with it.
    fn sums_of_chunks(&self) -> Vec<&'static str> {
        let any_p = matches!(self.kind, Kind::P(_));
        let own: Vec<&str> = match self.form.loads {
            Loads::Few if any_p => wgsl!["shared/chunk", "shared/power_each", "reduce_power"].to_vec(),
            _ if any_p => {
                let own =
                    wgsl!["shared/chunk", "shared/quads_of_chunk", "shared/power_quads", "reduce_power"];
                [&quads(self.dtype)[..], own].concat()
            }
            Loads::Few => wgsl!["shared/chunk", "shared/chunk_sum", "shared/column", "reduce"].to_vec(),
            loads => {
                let own: &[&str] = match self.form.stays {
                    true => wgsl!["shared/chunk_sum", "shared/blocks"],
                    false => wgsl!["shared/chunk_sum", "shared/blocks", "reduce_blocks"],
                };
                [&blocks(self.dtype, loads)[..], own].concat()
            }
        };
        [wgsl!["shared/largest"], &own[..]].concat()
    }

    fn combining(&self) -> Vec<&'static str> {
        let common = if matches!(self.kind, Kind::P(_)) { COMBINE_POWER } else { COMBINE };
        let own: &[&str] = match self.kernel {
            Kernel::Partials => wgsl!["shared/partial_item", "shared/step", "tensors"],
            _ => wgsl!["segments"],
        };
        [common, own].concat()
    }

    fn deciding(&self) -> Vec<&'static str> {
        match self.kernel {
            Kernel::Threshold => {
                [DECIDE, wgsl!["shared/float", "shared/limbs", "shared/thresholds", "threshold"]].concat()
            }
            Kernel::Coefficient => {
                [DECIDE, wgsl!["shared/adapting", "shared/outcomes", "coefficient"]].concat()
            }
            _ => wgsl![
                "shared/wide",
                "shared/element",
                "shared/real",
                "shared/float",
                "shared/advances",
                "advance"
            ]
            .to_vec(),
        }
    }

    fn applying(&self) -> Vec<&'static str> {
        match (self.kernel, self.form.loads) {
            (Kernel::Seams, _) => wgsl!["seams"].to_vec(),
            (Kernel::ApplyUnits, Loads::Few) => {
                wgsl!["shared/run", "shared/apply_units_each", "apply_units"].to_vec()
            }
            (Kernel::ApplyUnits, _) => {
                [vectors(self.dtype), wgsl!["shared/sixteen", "shared/apply_units_sixteen", "apply_units"]]
                    .concat()
            }
            (_, Loads::Vectors) => [vectors(self.dtype), wgsl!["shared/apply_vectors", "apply"]].concat(),
            (_, Loads::Words) => {
                [vectors(self.dtype), wgsl!["shared/sixteen", "shared/apply_sixteen", "apply"]].concat()
            }
            _ => wgsl!["shared/run", "shared/apply_words", "apply"].to_vec(),
        }
    }

    fn joining(&self) -> Vec<&'static str> {
        let own: &[&str] = match self.kernel {
            Kernel::UpdateSgd => wgsl!["shared/update", "update_sgd"],
            Kernel::UpdateMomentum => wgsl!["shared/update", "update_momentum"],
            Kernel::UpdateAdam => wgsl!["shared/update", "update_adam"],
            _ => wgsl!["accumulate"],
        };
        let turns: &[&str] = match self.form.loads {
            Loads::Few => wgsl!["shared/joint_each"],
            _ => wgsl!["shared/joint_four"],
        };
        [wgsl!["shared/finite", "shared/joint"], own, turns].concat()
    }
}

/// What elements are.
fn elements(dtype: DType) -> &'static str {
    match dtype {
        // There is no plan with f64.
        DType::F32 | DType::F64 => include_str!("../../shaders/shared/dtype_f32.wgsl"),
        DType::F16 => concat!(
            include_str!("../../shaders/shared/dtype_half.wgsl"),
            "fn half_to_f32(half: u32) -> u32 { return f16_to_f32(half); }\n",
            "fn f32_to_half(bits: u32) -> u32 { return f32_to_f16(bits); }\n",
        ),
        DType::Bf16 => concat!(
            include_str!("../../shaders/shared/dtype_half.wgsl"),
            "fn half_to_f32(half: u32) -> u32 { return half << 16u; }\n",
            "fn f32_to_half(bits: u32) -> u32 { return f32_to_bf16(bits); }\n",
        ),
    }
}

/// What an outcome does to one word of gradients.
fn applied_elements(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 | DType::F64 => include_str!("../../shaders/shared/applied_f32.wgsl"),
        DType::F16 => concat!(
            include_str!("../../shaders/shared/applied_half.wgsl"),
            "const LARGEST_HALF: u32 = 0x7bffu;\n",
        ),
        DType::Bf16 => concat!(
            include_str!("../../shaders/shared/applied_half.wgsl"),
            "const LARGEST_HALF: u32 = 0x7f7fu;\n",
        ),
    }
}

/// How blocks of elements are read, and what they are.
fn blocks(dtype: DType, loads: Loads) -> Vec<&'static str> {
    let access: &[&str] = match (dtype.size(), loads) {
        (4, Loads::Vectors) => wgsl!["shared/access_f32_vectors", "shared/access_vectors"],
        (4, _) => wgsl!["shared/access_f32_words"],
        (_, Loads::Vectors) => wgsl!["shared/access_half_vectors", "shared/access_vectors"],
        _ => wgsl!["shared/access_half_words"],
    };
    let own: &[&str] = match dtype {
        DType::F32 | DType::F64 => wgsl!["shared/block_f32", "shared/block_conversion"],
        DType::Bf16 => wgsl!["shared/block_bf16", "shared/block_conversion"],
        DType::F16 => wgsl!["shared/f16_bits", "shared/block_f16"],
    };
    [access, own].concat()
}

/// What vectors of elements are where floats are multiplied.
fn vectors(dtype: DType) -> &'static [&'static str] {
    match dtype {
        DType::F32 | DType::F64 => wgsl!["shared/vector_f32"],
        DType::Bf16 => wgsl!["shared/vector_bf16"],
        DType::F16 => wgsl!["shared/f16_bits", "shared/vector_f16"],
    }
}

/// Sixteen elements in flight, each by its own word, and what they are.
fn quads(dtype: DType) -> Vec<&'static str> {
    let own: &[&str] = match dtype {
        DType::F32 | DType::F64 => wgsl!["shared/quad_f32"],
        DType::Bf16 => wgsl!["shared/quad_bf16"],
        DType::F16 => wgsl!["shared/f16_bits", "shared/quad_f16"],
    };
    [wgsl!["shared/seen", "shared/quads"], own].concat()
}
