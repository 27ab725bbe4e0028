//! The registry: a row per kernel, with its WGSL, its bindings and its twin on the CPU.
//!
//! | kernel | WGSL | from | to | CPU twin |
//! |---|---|---|---|---|
//! | `Reduce` | `reduce.wgsl`, `reduce_power.wgsl` for any p | gradients | partial of each chunk | `cpu/reduce.rs`, `cpu/power.rs` |
//! | `ReduceShort` | `reduce_short.wgsl` | gradients | partials of short chunks | `cpu/reduce.rs` |
//! | `ReduceUnits` | `reduce_units.wgsl`, `reduce_teams.wgsl` | gradients | partial of each chunk of short units | `cpu/units.rs` |
//! | `Partials` | `tensors.wgsl` | partials | sum of each tensor, block or unit | `cpu/combine.rs` |
//! | `Sums` | `segments.wgsl` | sums of tensors or blocks | sum of each segment or tensor | `cpu/combine.rs` |
//! | `Threshold` | `threshold.wgsl` | sums, history | threshold of each limit that adapts | `cpu/threshold.rs` |
//! | `Coefficient` | `coefficient.wgsl` | sums, settings | outcome of each segment | `cpu/coefficient.rs` |
//! | `Apply` | `apply.wgsl` | outcomes | gradients, in place | `cpu/apply.rs` |
//! | `ApplyUnits` | `apply_units.wgsl` | outcomes | gradients of tensors cut into units | `cpu/apply.rs` |
//! | `Seams` | `seams.wgsl` | outcomes | words shared by two 16-bit gradients | `cpu/apply.rs` |
//! | `Advance` | `advance.wgsl` | tally | loss scale, corrections of the step | `cpu/advance.rs` |
//! | `UpdateSgd`, `UpdateMomentum`, `UpdateAdam` | `update_sgd.wgsl` … | gradients, outcomes | parameters, moments | `cpu/update.rs` |
//! | `Accumulate` | `accumulate.wgsl` | gradients, outcomes | accumulators | `cpu/accumulate.rs` |

use std::fmt::Write;

use crate::clip::Kind;
use crate::grad::DType;
use crate::layout::{CHUNK, ROWS, wgsl_constants};
use crate::plan::Pattern;

pub mod listing;

/// A kernel; see the module's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kernel {
    Reduce,
    ReduceShort,
    ReduceUnits,
    Partials,
    Sums,
    Threshold,
    Coefficient,
    Apply,
    ApplyUnits,
    Seams,
    Advance,
    UpdateSgd,
    UpdateMomentum,
    UpdateAdam,
    Accumulate,
}

/// What a kernel is compiled for. Kernels that read no gradients ignore `dtype` and `slots`, all but
/// [`Kernel::Threshold`] ignore `adapt`, all but the joint ones ignore `pattern`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Variant {
    pub(crate) kernel: Kernel,
    pub(crate) kind: Kind,
    pub(crate) dtype: DType,
    pub(crate) slots: u32,
    pub(crate) workgroup_size: u32,
    /// One of the `ADAPT_` constants.
    pub(crate) adapt: u32,
    /// Where what belongs to a gradient is bound.
    pub(crate) pattern: Pattern,
    /// Whether the unscale factor depends on a loss scale, for kernels that reduce gradients.
    pub(crate) scaled: bool,
    /// For kernels that take whole chunks.
    pub(crate) form: Form,
}

/// How a kernel reads gradients chunk by chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Loads {
    /// As software adapters do it fastest: few loads and little code at a time.
    #[default]
    Few,
    /// All loads of a turn in flight, word by word.
    Words,
    /// All loads of a turn in flight, by whole vectors.
    Vectors,
}

/// What a kernel that takes whole chunks is written for. Every form has the same bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Form {
    pub(crate) loads: Loads,
    /// Whether a product of 32-bit words is as fast as one of 24 bits.
    pub(crate) full_multiply: bool,
    /// Whether workgroups stay for more than one chunk.
    pub(crate) stays: bool,
}

/// The forms that there are.
pub(crate) const FORMS: [Form; 7] = {
    let few = Form { loads: Loads::Few, full_multiply: false, stays: false };
    let words = Form { loads: Loads::Words, ..few };
    let vectors = Form { loads: Loads::Vectors, ..few };
    [
        few,
        vectors,
        words,
        Form { full_multiply: true, ..vectors },
        Form { full_multiply: true, ..words },
        Form { stays: true, ..vectors },
        Form { stays: true, ..words },
    ]
};

/// How a buffer of bind group 0 is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Binding {
    Uniform,
    Read,
    ReadWrite,
}

impl Kernel {
    /// Stem of the file in `shaders/`; also the debug label.
    pub(crate) fn stem(self) -> &'static str {
        match self {
            Kernel::Reduce => "reduce",
            Kernel::ReduceShort => "reduce_short",
            Kernel::ReduceUnits => "reduce_units",
            Kernel::Partials => "tensors",
            Kernel::Sums => "segments",
            Kernel::Threshold => "threshold",
            Kernel::Coefficient => "coefficient",
            Kernel::Apply => "apply",
            Kernel::ApplyUnits => "apply_units",
            Kernel::Seams => "seams",
            Kernel::Advance => "advance",
            Kernel::UpdateSgd => "update_sgd",
            Kernel::UpdateMomentum => "update_momentum",
            Kernel::UpdateAdam => "update_adam",
            Kernel::Accumulate => "accumulate",
        }
    }

    /// Name of the entry point.
    pub(crate) fn entry(self) -> &'static str {
        match self {
            Kernel::Partials | Kernel::Sums => "combine",
            joint if joint.is_joint() => "joint",
            other => other.stem(),
        }
    }

    /// The bindings of group 0 in order.
    pub(crate) fn bindings(self) -> &'static [Binding] {
        use Binding::{Read, ReadWrite, Uniform};
        match self {
            Kernel::Reduce | Kernel::ReduceShort | Kernel::ReduceUnits => {
                &[Uniform, Read, ReadWrite, Uniform]
            }
            Kernel::Partials | Kernel::Sums => &[Uniform, Read, Read, ReadWrite],
            Kernel::Threshold => &[Uniform, Uniform, Read, Read, ReadWrite, ReadWrite, ReadWrite, Uniform],
            Kernel::Coefficient => &[Uniform, Read, Read, Read, ReadWrite, ReadWrite, ReadWrite, Uniform],
            Kernel::Apply | Kernel::Seams => &[Uniform, Read, Read],
            Kernel::ApplyUnits => &[Uniform, Read, Read, Uniform],
            Kernel::Advance => &[Uniform, Uniform, ReadWrite, ReadWrite],
            Kernel::UpdateSgd | Kernel::UpdateMomentum | Kernel::UpdateAdam | Kernel::Accumulate => {
                &[Uniform, Uniform, Uniform, Read, Read, Read]
            }
        }
    }

    /// Whether its text depends on the norm.
    pub(crate) fn has_norm(self) -> bool {
        matches!(
            self,
            Kernel::Reduce
                | Kernel::ReduceShort
                | Kernel::ReduceUnits
                | Kernel::Partials
                | Kernel::Sums
                | Kernel::Threshold
                | Kernel::Coefficient
        )
    }

    /// Whether it works on gradients together with what belongs to them.
    pub(crate) fn is_joint(self) -> bool {
        matches!(self, Kernel::UpdateSgd | Kernel::UpdateMomentum | Kernel::UpdateAdam | Kernel::Accumulate)
    }

    /// How the gradients in group 1 are bound, for kernels that touch them.
    pub(crate) fn slots(self) -> Option<Binding> {
        match self {
            Kernel::Reduce | Kernel::ReduceShort | Kernel::ReduceUnits => Some(Binding::Read),
            Kernel::Apply | Kernel::ApplyUnits | Kernel::Seams => Some(Binding::ReadWrite),
            // One buffer may hold gradients too, and cannot be bound in two ways at once.
            joint if joint.is_joint() => Some(Binding::ReadWrite),
            _ => None,
        }
    }

    /// Whether it reads gradients chunk by chunk.
    pub(crate) fn reduces(self) -> bool {
        matches!(self, Kernel::Reduce | Kernel::ReduceShort | Kernel::ReduceUnits)
    }

    /// Whether it leaves out segments from `Job::until` on.
    pub(crate) fn leaves_out(self) -> bool {
        self.reduces() || self == Kernel::Coefficient
    }

    /// The form in which it exists nearest to the one wanted.
    pub(crate) fn form(self, kind: Kind, wanted: Form) -> Form {
        match (self, kind) {
            (Kernel::Reduce, Kind::Two) if wanted.loads != Loads::Few => wanted,
            (Kernel::Reduce, Kind::One | Kind::Inf) if wanted.loads != Loads::Few => {
                Form { full_multiply: false, ..wanted }
            }
            (Kernel::ReduceUnits, Kind::P(_)) => Form::default(),
            (Kernel::Reduce | Kernel::ReduceShort | Kernel::ReduceUnits, _) if wanted.loads != Loads::Few => {
                Form { loads: Loads::Words, ..Form::default() }
            }
            (Kernel::Apply, _) if wanted.loads == Loads::Vectors => {
                Form { loads: Loads::Vectors, ..Form::default() }
            }
            _ => Form::default(),
        }
    }

    /// Whether it has sixteen elements of an invocation in flight, each by its own word.
    pub(crate) fn has_quads(self, kind: Kind, form: Form) -> bool {
        let by_quads = matches!(
            (self, kind),
            (Kernel::ReduceShort | Kernel::ReduceUnits, _) | (Kernel::Reduce, Kind::P(_))
        );
        by_quads && form.loads != Loads::Few
    }

    fn parts(self, kind: Kind, form: Form) -> &'static [&'static str] {
        macro_rules! wgsl {
            ($($stem:literal),+) => { &[$(include_str!(concat!("../shaders/", $stem, ".wgsl"))),+] };
        }
        macro_rules! joint {
            ($($stem:literal),+) => {
                wgsl![
                    "shared/wide",
                    "shared/element",
                    "shared/real",
                    "shared/apply",
                    "shared/finite",
                    "shared/joint",
                    $($stem),+
                ]
            };
        }
        macro_rules! reduce {
            ($($stem:literal),+) => {
                wgsl![
                    "shared/wide", "shared/element", "shared/real", "shared/unscale", "shared/largest", $($stem),+
                ]
            };
        }
        let any_p = matches!(kind, Kind::P(_));
        let quads = self.has_quads(kind, form);
        match self {
            Kernel::Reduce if quads => reduce![
                "shared/chunk",
                "shared/quads",
                "shared/quads_of_chunk",
                "shared/power",
                "shared/lanes",
                "shared/power_quads",
                "reduce_power"
            ],
            Kernel::Reduce if any_p => {
                reduce!["shared/chunk", "shared/power", "shared/lanes", "shared/power_each", "reduce_power"]
            }
            Kernel::Reduce if form.stays => reduce!["shared/blocks", "reduce_staying"],
            Kernel::Reduce if form.loads != Loads::Few => reduce!["shared/blocks", "reduce_blocks"],
            Kernel::Reduce => reduce!["shared/chunk", "reduce"],
            Kernel::ReduceShort if quads => reduce![
                "shared/chunk",
                "shared/quads",
                "shared/quads_of_chunk",
                "shared/short_quads",
                "reduce_short"
            ],
            Kernel::ReduceShort => reduce!["shared/chunk", "shared/short_each", "reduce_short"],
            Kernel::ReduceUnits if quads => reduce!["shared/quads", "reduce_teams"],
            Kernel::ReduceUnits if any_p => reduce!["shared/power", "shared/unit_power", "reduce_units"],
            Kernel::ReduceUnits => reduce!["shared/unit_integer", "reduce_units"],
            Kernel::Partials if any_p => {
                wgsl!["shared/power", "shared/lanes", "shared/combine", "shared/combine_power", "tensors"]
            }
            Kernel::Partials => {
                wgsl!["shared/wide", "shared/limbs", "shared/combine", "shared/combine_integer", "tensors"]
            }
            Kernel::Sums if any_p => {
                wgsl!["shared/power", "shared/lanes", "shared/combine", "shared/combine_power", "segments"]
            }
            Kernel::Sums => {
                wgsl!["shared/wide", "shared/limbs", "shared/combine", "shared/combine_integer", "segments"]
            }
            Kernel::Threshold => wgsl![
                "shared/wide",
                "shared/element",
                "shared/real",
                "shared/decide",
                "shared/float",
                "shared/limbs",
                "shared/unscale",
                "shared/step",
                "threshold"
            ],
            Kernel::Coefficient => {
                wgsl![
                    "shared/wide",
                    "shared/element",
                    "shared/real",
                    "shared/decide",
                    "shared/unscale",
                    "shared/step",
                    "coefficient"
                ]
            }
            Kernel::Apply if form.loads == Loads::Vectors => {
                wgsl!["shared/wide", "shared/element", "shared/real", "shared/apply", "apply_vectors"]
            }
            Kernel::Apply => {
                wgsl!["shared/wide", "shared/element", "shared/real", "shared/apply", "shared/run", "apply"]
            }
            Kernel::ApplyUnits => {
                wgsl![
                    "shared/wide",
                    "shared/element",
                    "shared/real",
                    "shared/apply",
                    "shared/run",
                    "apply_units"
                ]
            }
            Kernel::Seams => wgsl!["shared/wide", "shared/element", "shared/real", "shared/apply", "seams"],
            Kernel::Advance => {
                wgsl!["shared/wide", "shared/element", "shared/real", "shared/float", "advance"]
            }
            Kernel::UpdateSgd => joint!["shared/update", "update_sgd"],
            Kernel::UpdateMomentum => joint!["shared/update", "update_momentum"],
            Kernel::UpdateAdam => joint!["shared/update", "update_adam"],
            Kernel::Accumulate => joint!["accumulate"],
        }
    }
}

impl Variant {
    /// The complete WGSL of the kernel.
    pub(crate) fn source(&self) -> String {
        let mut text = wgsl_constants();
        let _ = writeln!(text, "const WORKGROUP: u32 = {}u;", self.workgroup_size);
        let (norm, p) = match self.kind {
            Kind::Inf => (0, 1.0),
            Kind::One => (1, 1.0),
            Kind::Two => (2, 2.0),
            Kind::P(bits) => (3, f32::from_bits(bits)),
        };
        for (name, value) in [("NORM_INF", 0), ("NORM_ONE", 1), ("NORM_P", 3), ("NORM", norm)] {
            let _ = writeln!(text, "const {name}: u32 = {value}u;");
        }
        let _ = writeln!(text, "const ADAPT: u32 = {}u;", self.adapt);
        let _ = writeln!(text, "const P: f32 = {p:e}f;");
        let _ = writeln!(text, "const SCALED: bool = {};", self.scaled);
        let _ = writeln!(text, "const ALIGN: u32 = {}u;", self.kind.align());
        let _ = writeln!(text, "const FULL_MULTIPLY: bool = {};", self.form.full_multiply);
        if let Some(access) = self.kernel.slots() {
            text.push_str(dtype_source(self.dtype));
            if access == Binding::ReadWrite {
                text.push_str(applied_word_source(self.dtype));
            }
        }
        text.push_str(include_str!("../shaders/shared/records.wgsl"));
        let blocks = match self.kernel {
            Kernel::Apply => vector_source(self.dtype, self.form.loads),
            kernel if kernel.has_quads(self.kind, self.form) => vec![quad_source(self.dtype)],
            _ => block_sources(self.dtype, self.form.loads),
        };
        for part in blocks.into_iter().chain(self.kernel.parts(self.kind, self.form).iter().copied()) {
            text.push_str(&expand(&expand_rows(part, self.dtype), self.slots, &self.pattern));
        }
        text
    }
}

fn dtype_source(dtype: DType) -> &'static str {
    match dtype {
        // There is no plan with f64.
        DType::F32 | DType::F64 => include_str!("../shaders/shared/dtype_f32.wgsl"),
        DType::F16 => concat!(
            include_str!("../shaders/shared/dtype_half.wgsl"),
            "fn half_to_f32(half: u32) -> u32 { return f16_to_f32(half); }\n",
            "fn f32_to_half(bits: u32) -> u32 { return f32_to_f16(bits); }\n",
        ),
        DType::Bf16 => concat!(
            include_str!("../shaders/shared/dtype_half.wgsl"),
            "fn half_to_f32(half: u32) -> u32 { return half << 16u; }\n",
            "fn f32_to_half(bits: u32) -> u32 { return f32_to_bf16(bits); }\n",
        ),
    }
}

/// What an outcome does to one word of gradients.
fn applied_word_source(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 | DType::F64 => include_str!("../shaders/shared/applied_f32.wgsl"),
        DType::F16 => concat!(
            include_str!("../shaders/shared/applied_half.wgsl"),
            "const LARGEST_HALF: u32 = 0x7bffu;\n",
        ),
        DType::Bf16 => concat!(
            include_str!("../shaders/shared/applied_half.wgsl"),
            "const LARGEST_HALF: u32 = 0x7f7fu;\n",
        ),
    }
}

/// How blocks of elements are read, and what they are.
fn block_sources(dtype: DType, loads: Loads) -> Vec<&'static str> {
    let access = match (dtype, loads) {
        (_, Loads::Few) => return Vec::new(),
        (DType::F32 | DType::F64, Loads::Words) => include_str!("../shaders/shared/access_f32_words.wgsl"),
        (DType::F32 | DType::F64, Loads::Vectors) => {
            include_str!("../shaders/shared/access_f32_vectors.wgsl")
        }
        (DType::F16 | DType::Bf16, Loads::Words) => include_str!("../shaders/shared/access_half_words.wgsl"),
        (DType::F16 | DType::Bf16, Loads::Vectors) => {
            include_str!("../shaders/shared/access_half_vectors.wgsl")
        }
    };
    let conversion = include_str!("../shaders/shared/block_conversion.wgsl");
    match dtype {
        DType::F32 | DType::F64 => vec![access, include_str!("../shaders/shared/block_f32.wgsl"), conversion],
        DType::Bf16 => vec![access, include_str!("../shaders/shared/block_bf16.wgsl"), conversion],
        DType::F16 => vec![access, include_str!("../shaders/shared/block_f16.wgsl")],
    }
}

/// What vectors of elements are where floats are multiplied.
fn vector_source(dtype: DType, loads: Loads) -> Vec<&'static str> {
    match dtype {
        _ if loads != Loads::Vectors => Vec::new(),
        DType::F32 | DType::F64 => vec![include_str!("../shaders/shared/vector_f32.wgsl")],
        DType::Bf16 => vec![include_str!("../shaders/shared/vector_bf16.wgsl")],
        DType::F16 => vec![include_str!("../shaders/shared/vector_f16.wgsl")],
    }
}

/// What four elements are that lie apart.
fn quad_source(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 | DType::F64 => include_str!("../shaders/shared/quad_f32.wgsl"),
        DType::Bf16 => include_str!("../shaders/shared/quad_bf16.wgsl"),
        DType::F16 => include_str!("../shaders/shared/quad_f16.wgsl"),
    }
}

/// Repeats what stands between `//@each row` and `//@end row` once a row of a chunk, with `ROW` replaced by its number;
/// between `//@each further row` and that, for all rows but the first; between `//@each vector` and that, once a vector
/// of 16 bytes that each of 256 invocations has of a chunk.
fn expand_rows(source: &str, dtype: DType) -> String {
    let mut out = String::with_capacity(source.len());
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        let count = match line.trim() {
            "//@each row" => 0..ROWS,
            "//@each further row" => 1..ROWS,
            "//@each vector" => 0..CHUNK * dtype.size() as u32 / (256 * 16),
            _ => {
                out.push_str(line);
                out.push('\n');
                continue;
            }
        };
        let block: Vec<&str> = lines.by_ref().take_while(|line| line.trim() != "//@end row").collect();
        let block = block.join("\n") + "\n";
        count.for_each(|row| out.push_str(&block.replace("ROW", &row.to_string())));
    }
    out
}

/// Repeats what stands between the lines `//@each slot` and `//@end` once a slot, with `SLOT`
/// replaced by its number and `ROLE0` to `ROLE3` by the bindings of what belongs together. Between
/// `//@each binding` and `//@end` the same once a binding.
fn expand(source: &str, slots: u32, pattern: &Pattern) -> String {
    let a_slot = pattern.bindings().max(1);
    let mut out = String::with_capacity(source.len());
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        let count = match line.trim() {
            "//@each slot" => slots as usize,
            "//@each binding" => slots as usize * a_slot,
            _ => {
                out.push_str(line);
                out.push('\n');
                continue;
            }
        };
        let block: Vec<&str> = lines.by_ref().take_while(|line| line.trim() != "//@end").collect();
        let block = block.join("\n") + "\n";
        for slot in 0..count {
            let mut block = block.replace("SLOT", &slot.to_string());
            for (role, binding) in pattern.binding_of().enumerate() {
                block = block.replace(&format!("ROLE{role}"), &format!("slot_{}", slot * a_slot + binding));
            }
            out.push_str(&block);
        }
    }
    out
}

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
