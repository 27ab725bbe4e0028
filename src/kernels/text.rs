//! The text of a kernel: constants, then its parts with what is repeated.

use std::fmt::Write;

use crate::clip::Summation;
use crate::layout::{CHUNK, ROWS, wgsl_constants};
use crate::plan::Pattern;
use crate::tensor::DType;

use super::variant::Variant;

impl Variant {
    /// The complete WGSL of the kernel.
    pub(crate) fn source(&self) -> String {
        let mut text = wgsl_constants();
        let _ = writeln!(text, "const WORKGROUP: u32 = {}u;", self.workgroup_size);
        let (norm, p) = match self.summation {
            Summation::Inf => (0, 1.0),
            Summation::One => (1, 1.0),
            Summation::Two => (2, 2.0),
            Summation::P(bits) => (3, f32::from_bits(bits)),
        };
        for (name, value) in [("NORM_INF", 0), ("NORM_ONE", 1), ("NORM_P", 3), ("NORM", norm)] {
            let _ = writeln!(text, "const {name}: u32 = {value}u;");
        }
        let _ = writeln!(text, "const ADAPT: u32 = {}u;", self.adapt);
        let _ = writeln!(text, "const P: f32 = {p:e}f;");
        let _ = writeln!(text, "const SCALED: bool = {};", self.scaled);
        let _ = writeln!(text, "const BY_ROWS: bool = {};", self.pattern.is_by_rows());
        let turns = turns(self.dtype);
        let _ = writeln!(text, "const VECTORS: u32 = {}u;", vectors(self.dtype) / turns);
        let _ = writeln!(text, "const VECTOR_TURNS: u32 = {turns}u;");
        let _ = writeln!(text, "const ALIGN: u32 = {}u;", self.summation.align());
        let _ = writeln!(text, "const FULL_MULTIPLY: bool = {};", self.form.full_multiply);
        for part in self.parts() {
            let _ = writeln!(text, "// {}.wgsl", part.stem);
            text.push_str(&expand(&expand_rows(part.text, self.dtype), self.slots, &self.pattern));
        }
        text
    }
}

/// Vectors of 16 bytes that each of 256 invocations has of a chunk.
fn vectors(dtype: DType) -> u32 {
    CHUNK * dtype.size() as u32 / (256 * 16)
}

/// Turns in which an invocation multiplies its vectors: what rounds an `f16` needs the registers of some.
fn turns(dtype: DType) -> u32 {
    if dtype == DType::F16 { 2 } else { 1 }
}

/// Repeats what stands between `//@each row` and `//@end row` once a row of a chunk, with `ROW` replaced by its number;
/// between `//@each further row` and that, for all rows but the first; between `//@each vector` and that, once a vector
/// of 16 bytes that each of 256 invocations has of a chunk in a turn.
fn expand_rows(source: &str, dtype: DType) -> String {
    let mut out = String::with_capacity(source.len());
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        let count = match line.trim() {
            "//@each row" => 0..ROWS,
            "//@each further row" => 1..ROWS,
            "//@each vector" => 0..vectors(dtype) / turns(dtype),
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
/// replaced by its number, `OPERAND0` to `OPERAND4` by the bindings of the operands, and `OPERANDHALF` by that of the
/// parameter in 16 bits. Between
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
            for (operand, binding) in pattern.binding_of().enumerate() {
                block =
                    block.replace(&format!("OPERAND{operand}"), &format!("slot_{}", slot * a_slot + binding));
            }
            if let Some(operand) = pattern.precision().half_operand(pattern.operands()) {
                let binding = pattern.binding_of().nth(operand).unwrap_or_default();
                block = block.replace("OPERANDHALF", &format!("slot_{}", slot * a_slot + binding));
            }
            out.push_str(&block);
        }
    }
    out
}
