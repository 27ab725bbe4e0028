//! What is read from a listing of AMD machine code (GFX9 to GFX11, as LLVM prints it for RADV): basic blocks, what
//! kind of instruction each line is, and which buffer a memory access goes to.

use std::collections::HashMap;

/// A scalar register, by number.
type Sgpr = u16;

/// What an instruction does, as far as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Does {
    /// Vector arithmetic.
    Vector,
    /// Scalar arithmetic and loads.
    Scalar,
    /// Loads so many bytes a lane from a buffer.
    Load(u32),
    /// Stores so many bytes a lane to one.
    Store(u32),
    /// Waits until at most so many loads are on their way (GFX9: loads and stores).
    Wait(u32),
    /// Branches, waits for other things, hints.
    Other,
}

/// A line of the listing.
#[derive(Clone, Debug)]
pub(crate) struct Instruction {
    pub(crate) op: String,
    pub(crate) operands: Vec<String>,
    pub(crate) does: Does,
    /// For buffer accesses: from which of the bind groups in use the descriptor came, in the order of their
    /// registers, where that can be told.
    pub(crate) group: Option<usize>,
}

/// Instructions that are only entered at the first and left at the last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Block {
    /// The line of the listing it begins at, from 0.
    pub(crate) line: usize,
    pub(crate) instructions: Vec<Instruction>,
    /// Where it may go on: for a conditional branch the next block, then the branch's target.
    pub(crate) next: Vec<usize>,
}

/// The blocks of a listing in its order; the first is where it begins.
pub(crate) fn blocks(listing: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut labels = HashMap::new();
    for (number, line) in listing.lines().enumerate() {
        let begun = || Block { line: number, ..Block::default() };
        let code = line.split(';').next().unwrap_or_default().trim();
        if let Some(label) = code.strip_suffix(':') {
            labels.insert(label.to_owned(), blocks.len());
            blocks.push(begun());
        } else if let Some(instruction) = Instruction::read(code) {
            // A branch ends a block, labelled or not.
            if blocks.last().is_none_or(|b| b.instructions.last().is_some_and(Instruction::ends)) {
                blocks.push(begun());
            }
            if let Some(block) = blocks.last_mut() {
                block.instructions.push(instruction);
            }
        }
    }
    let count = blocks.len();
    for (i, block) in blocks.iter_mut().enumerate() {
        let last = block.instructions.last();
        let op = last.map_or("", |last| last.op.as_str());
        if op != "s_branch" && op != "s_endpgm" && i + 1 < count {
            block.next.push(i + 1);
        }
        if op.starts_with("s_branch") || op.starts_with("s_cbranch") {
            let target = last.and_then(|last| labels.get(last.operands.first()?));
            block.next.extend(target);
        }
    }
    name_groups(&mut blocks);
    blocks
}

impl Instruction {
    fn read(code: &str) -> Option<Instruction> {
        let (op, rest) = code.split_once(char::is_whitespace).unwrap_or((code, ""));
        if !op.contains('_') {
            return None; // headings
        }
        let operands: Vec<String> =
            rest.split(',').map(|operand| operand.trim().to_owned()).filter(|o| !o.is_empty()).collect();
        Some(Instruction { op: op.into(), does: does(op, rest), operands, group: None })
    }

    fn ends(&self) -> bool {
        self.op == "s_branch" || self.op == "s_endpgm" || self.op.starts_with("s_cbranch")
    }

    /// Scalar registers that it writes.
    pub(crate) fn writes(&self) -> Vec<Sgpr> {
        let none =
            ["s_cmp", "s_bitcmp", "s_cbranch", "s_branch", "s_waitcnt", "s_buffer_store", "buffer_", "ds_"];
        if none.iter().any(|op| self.op.starts_with(op)) {
            return Vec::new();
        }
        // Carries go to a second operand.
        let carries = ["_co_", "v_div_scale", "v_mad_u64", "v_mad_i64"];
        let results = if carries.iter().any(|op| self.op.contains(op)) { 2 } else { 1 };
        self.operands.iter().take(results).flat_map(|operand| sgprs(operand)).collect()
    }

    /// Scalar registers named in it.
    pub(crate) fn names(&self) -> Vec<Sgpr> {
        self.operands.iter().flat_map(|operand| sgprs(operand)).collect()
    }

    /// Whether it sets the condition that scalar branches test. Only comparisons are told apart from each other.
    pub(crate) fn compares(&self) -> bool {
        self.op.starts_with("s_cmp") || self.op.starts_with("s_bitcmp")
    }

    /// The register and the constant of a comparison for equality.
    pub(crate) fn equality(&self) -> Option<(&str, &str)> {
        let [register, constant] = &self.operands[..] else { return None };
        let equal = self.op.starts_with("s_cmp_eq") || self.op.starts_with("s_cmpk_eq");
        (equal && sgprs(constant).is_empty()).then_some((register, constant))
    }

    /// Whether it leaves that condition as it is, of which scalar moves and loads alone are sure.
    pub(crate) fn keeps_condition(&self) -> bool {
        let scalar = ["s_mov", "s_cmov", "s_load", "s_buffer", "s_waitcnt", "s_clause", "s_nop", "s_cbranch"];
        !self.op.starts_with("s_") || scalar.iter().any(|start| self.op.starts_with(start))
    }

    /// Whether from here on the other lanes of those that were saved are active: the second side of a branch.
    pub(crate) fn takes_others(&self) -> bool {
        let lanes = |operand: Option<&String>| operand.is_some_and(|operand| operand == "exec");
        (self.op == "s_andn2_b64" || self.op == "s_and_not1_b64")
            && lanes(self.operands.first())
            && lanes(self.operands.last())
    }

    /// Whether other lanes are active after it.
    pub(crate) fn changes_lanes(&self) -> bool {
        let written = self.operands.first().is_some_and(|first| first == "exec");
        written || self.op.contains("saveexec") || self.op.starts_with("v_cmpx")
    }

    pub(crate) fn text(&self) -> String {
        format!("{} {}", self.op, self.operands.join(", "))
    }
}

fn does(op: &str, operands: &str) -> Does {
    if let Some(what) = op.strip_prefix("buffer_load_").or(op.strip_prefix("global_load_")) {
        return width(what).map_or(Does::Other, Does::Load);
    }
    if let Some(what) = op.strip_prefix("buffer_store_").or(op.strip_prefix("global_store_")) {
        return width(what).map_or(Does::Other, Does::Store);
    }
    if op == "s_waitcnt" {
        let count = operands.split("vmcnt(").nth(1).and_then(|rest| rest.split(')').next()?.parse().ok());
        return count.map_or(Does::Other, Does::Wait);
    }
    let hints = [
        "s_waitcnt",
        "s_branch",
        "s_cbranch",
        "s_endpgm",
        "s_clause",
        "s_nop",
        "s_delay",
        "s_inst",
        "s_barrier",
    ];
    match op {
        _ if hints.iter().any(|hint| op.starts_with(hint)) => Does::Other,
        _ if op.starts_with("v_nop") => Does::Other,
        _ if op.starts_with("v_") => Does::Vector,
        _ if op.starts_with("s_") => Does::Scalar,
        _ => Does::Other,
    }
}

/// Bytes by the end of a memory instruction's name.
fn width(what: &str) -> Option<u32> {
    Some(match what {
        "ubyte" | "sbyte" | "byte" | "u8" | "i8" | "b8" => 1,
        "ushort" | "sshort" | "short" | "u16" | "i16" | "b16" | "short_d16" | "d16_b16" => 2,
        "dword" | "b32" => 4,
        "dwordx2" | "b64" => 8,
        "dwordx3" | "b96" => 12,
        "dwordx4" | "b128" => 16,
        _ => return None,
    })
}

/// The registers of `s7` or `s[4:7]`; none of anything else.
fn sgprs(operand: &str) -> std::ops::Range<Sgpr> {
    let Some(rest) = operand.split_whitespace().next().and_then(|word| word.strip_prefix('s')) else {
        return 0..0;
    };
    let range = rest.strip_prefix('[').and_then(|range| range.strip_suffix(']'));
    match range.and_then(|range| range.split_once(':')) {
        Some((first, last)) => match (first.parse::<Sgpr>(), last.parse::<Sgpr>()) {
            (Ok(first), Ok(last)) => first..last + 1,
            _ => 0..0,
        },
        None => rest.parse().map_or(0..0, |only: Sgpr| only..only + 1),
    }
}

/// Where the value of a scalar register came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// It is what this register held when the shader began.
    Given(Sgpr),
    /// It was loaded from where that register, as it was then, points.
    Behind(Sgpr),
    Unknown,
}

type Origins = HashMap<Sgpr, Origin>;

fn origin(of: &Origins, register: Sgpr) -> Origin {
    of.get(&register).copied().unwrap_or(Origin::Given(register))
}

/// Descriptors are loaded from tables, one a bind group, whose addresses the shader is given in scalar registers in
/// the order of the groups. Follows copies of these addresses and loads through them along all ways.
fn name_groups(blocks: &mut [Block]) {
    let mut entered: Vec<Option<Origins>> = vec![None; blocks.len()];
    if let Some(first) = entered.first_mut() {
        *first = Some(Origins::new());
    }
    let mut waiting = vec![0];
    while let Some(at) = waiting.pop() {
        let (Some(block), Some(Some(before))) = (blocks.get(at), entered.get(at)) else { continue };
        let mut origins = before.clone();
        block.instructions.iter().for_each(|i| follow(&mut origins, i));
        for &next in &block.next {
            let merged = entered[next].as_ref().map_or(origins.clone(), |old| meet(old, &origins));
            if entered[next].as_ref() != Some(&merged) {
                entered[next] = Some(merged);
                waiting.push(next);
            }
        }
    }
    let mut tables = Vec::new();
    let mut accesses = Vec::new();
    for (at, block) in blocks.iter().enumerate() {
        let mut origins = entered[at].clone().unwrap_or_default();
        for (i, instruction) in block.instructions.iter().enumerate() {
            if let Some(Origin::Behind(table)) = descriptor(instruction).map(|first| origin(&origins, first))
            {
                tables.push(table);
                accesses.push((at, i, table));
            }
            follow(&mut origins, instruction);
        }
    }
    tables.sort_unstable();
    tables.dedup();
    for (at, i, table) in accesses {
        blocks[at].instructions[i].group = tables.iter().position(|&t| t == table);
    }
}

fn meet(a: &Origins, b: &Origins) -> Origins {
    let registers = a.keys().chain(b.keys());
    let both = |&r: &Sgpr| (r, if origin(a, r) == origin(b, r) { origin(a, r) } else { Origin::Unknown });
    registers.map(both).collect()
}

fn follow(origins: &mut Origins, instruction: &Instruction) {
    let written = instruction.writes();
    let from = instruction.operands.get(1).map_or(0..0, |operand| sgprs(operand));
    let op = instruction.op.as_str();
    let values: Vec<Origin> = match op {
        "s_mov_b32" | "s_mov_b64" if from.len() == written.len() => {
            from.map(|r| origin(origins, r)).collect()
        }
        _ if op.starts_with("s_load_") => {
            let value = match origin(origins, from.start) {
                Origin::Given(table) if !from.is_empty() => Origin::Behind(table),
                _ => Origin::Unknown,
            };
            vec![value; written.len()]
        }
        _ => vec![Origin::Unknown; written.len()],
    };
    origins.extend(written.into_iter().zip(values));
}

/// First register of the four that a buffer access takes its descriptor from.
fn descriptor(instruction: &Instruction) -> Option<Sgpr> {
    let buffer = instruction.op.starts_with("buffer_") || instruction.op.starts_with("s_buffer_load");
    let four = |operand: &String| Some(sgprs(operand)).filter(|range| range.len() == 4);
    // The first operand is what is loaded or stored.
    let range = instruction.operands.iter().skip(1).find_map(four)?;
    buffer.then_some(range.start)
}
