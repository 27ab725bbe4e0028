//! The ways through a listing: loops, and the best way from one block to others.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::listing::{Block, Does, Instruction};

/// Where blocks lead, without the edges that close loops.
pub(crate) struct Graph {
    pub(crate) blocks: Vec<Block>,
    /// Successors, but for those that dominate the block.
    forward: Vec<Vec<usize>>,
    pub(crate) loops: Vec<Loop>,
    /// Comparisons that stand before more than one branch: such branches go the same way as long as the registers
    /// compared are not written.
    repeated: HashSet<String>,
    /// What the hot part does: how the name of some instruction in it begins.
    through: String,
}

/// A loop: all blocks from which its first one can be reached again without leaving it.
pub(crate) struct Loop {
    pub(crate) head: usize,
    pub(crate) blocks: HashSet<usize>,
    /// Blocks from which it goes back to the first.
    pub(crate) closes: HashSet<usize>,
}

/// How good a way is: more bytes of slots first, then whether it does what it should, then fewer vector
/// instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Score {
    pub(crate) bytes: u32,
    pub(crate) does: bool,
    pub(crate) vector: u32,
}

impl Score {
    pub(crate) fn beats(self, other: Score) -> bool {
        let key = |s: Score| (s.bytes, s.does, std::cmp::Reverse(s.vector));
        key(self) > key(other)
    }
}

impl std::ops::Add for Score {
    type Output = Score;

    fn add(self, other: Score) -> Score {
        let (bytes, vector) = (self.bytes + other.bytes, self.vector + other.vector);
        Score { bytes, does: self.does || other.does, vector }
    }
}

/// What is known on a way: which comparisons held, and under [`LANES`] whether any lane is active.
type Decided = BTreeMap<String, bool>;
const LANES: &str = "exec";
type Ways = HashMap<(usize, Decided), Option<(Score, Vec<usize>)>>;

impl Graph {
    pub(crate) fn new(blocks: Vec<Block>, through: &str) -> Graph {
        let dominators = dominators(&blocks);
        let mut forward: Vec<Vec<usize>> = Vec::new();
        let mut closed: BTreeMap<usize, HashSet<usize>> = BTreeMap::new();
        for (at, block) in blocks.iter().enumerate() {
            let (back, on): (Vec<usize>, Vec<usize>) =
                block.next.iter().partition(|next| dominators[at].contains(next));
            back.into_iter().for_each(|head| {
                closed.entry(head).or_default().insert(at);
            });
            forward.push(on);
        }
        let loops = closed.into_iter().map(|(head, closes)| Loop::new(&blocks, head, closes)).collect();
        let mut seen = HashSet::new();
        let texts = blocks.iter().filter_map(|block| Some(tested(block)?.0));
        let repeated = texts.filter(|text| !seen.insert(text.clone())).collect();
        Graph { blocks, forward, loops, repeated, through: through.into() }
    }

    /// Vector instructions of a block, and bytes a lane that go to or from slots in it.
    pub(crate) fn score(&self, at: usize) -> Score {
        let mut score = Score::default();
        for instruction in &self.blocks[at].instructions {
            score.does |= instruction.op.starts_with(&self.through);
            match instruction.does {
                Does::Vector => score.vector += 1,
                Does::Load(bytes) | Does::Store(bytes) if instruction.group == Some(1) => {
                    score.bytes += bytes
                }
                _ => {}
            }
        }
        score
    }

    /// The best way from the start to a block for which `ends`, over those for which `within`, each weighed by
    /// `score`.
    pub(crate) fn best(
        &self,
        start: usize,
        within: &dyn Fn(usize) -> bool,
        ends: &dyn Fn(usize) -> bool,
        score: &dyn Fn(usize) -> Score,
    ) -> Option<Vec<usize>> {
        let mut search = Search { graph: self, within, ends, score, ways: Ways::new() };
        let (_, mut way) = search.from(start, Decided::new())?;
        way.reverse();
        Some(way)
    }

    /// The best way once round a loop.
    pub(crate) fn round(&self, of: &Loop, score: &dyn Fn(usize) -> Score) -> Option<Vec<usize>> {
        self.best(of.head, &|at| of.blocks.contains(&at), &|at| of.closes.contains(&at), score)
    }
}

struct Search<'a> {
    graph: &'a Graph,
    within: &'a dyn Fn(usize) -> bool,
    ends: &'a dyn Fn(usize) -> bool,
    score: &'a dyn Fn(usize) -> Score,
    ways: Ways,
}

impl Search<'_> {
    /// The best way on from a block, last block first.
    fn from(&mut self, at: usize, mut decided: Decided) -> Option<(Score, Vec<usize>)> {
        if !(self.within)(at) {
            return None;
        }
        if let Some(known) = self.ways.get(&(at, decided.clone())) {
            return known.clone();
        }
        let known_as = (at, decided.clone());
        let block = &self.graph.blocks[at];
        block.instructions.iter().for_each(|i| learn(&mut decided, i));
        let mut best: Option<(Score, Vec<usize>)> = (self.ends)(at).then(Default::default);
        let test = tested(block).filter(|(text, _)| text == LANES || self.graph.repeated.contains(text));
        for (i, &next) in self.graph.forward[at].iter().enumerate() {
            let mut decided = decided.clone();
            if let Some((text, when)) = &test {
                // The branch's target is the last of the successors.
                let holds = (i + 1 == block.next.len()) == *when;
                if *decided.entry(text.clone()).or_insert(holds) != holds {
                    continue;
                }
            }
            if let Some((score, way)) = self.from(next, decided)
                && best.as_ref().is_none_or(|(other, _)| score.beats(*other))
            {
                best = Some((score, way));
            }
        }
        let own = (self.score)(at);
        let best = best.map(|(score, mut way)| {
            way.push(at);
            (score + own, way)
        });
        self.ways.insert(known_as, best.clone());
        best
    }
}

/// What an instruction changes of what is known. The two sides of a branch that lanes take apart begin with
/// fewer lanes, and with the others of those that were saved before: where none went one way, some go the other.
fn learn(decided: &mut Decided, instruction: &Instruction) {
    let written = instruction.writes();
    decided.retain(|text, _| !registers(text).iter().any(|register| written.contains(register)));
    let first = instruction.operands.first().map_or("", String::as_str);
    let others = instruction.op == "s_andn2_b64" || instruction.op == "s_and_not1_b64";
    if first == "exec" && others && instruction.operands.last().is_some_and(|last| last == "exec") {
        let none = decided.remove(LANES) == Some(false);
        if none {
            decided.insert(LANES.into(), true);
        }
    } else if first == "exec" || instruction.op.contains("saveexec") || instruction.op.starts_with("v_cmpx") {
        decided.remove(LANES);
    }
}

/// The comparison that the branch at a block's end tests, and whether it branches where that holds.
fn tested(block: &Block) -> Option<(String, bool)> {
    let when = match block.instructions.last()?.op.as_str() {
        "s_cbranch_scc0" => false,
        "s_cbranch_scc1" => true,
        "s_cbranch_execz" => return Some((LANES.into(), false)),
        "s_cbranch_execnz" => return Some((LANES.into(), true)),
        _ => return None,
    };
    let at = block.instructions.iter().rposition(|i| i.compares())?;
    let (comparison, after) = block.instructions[at..].split_first()?;
    // Of other scalar instructions, moves and loads alone are sure to leave the condition as it is.
    let keeps = |op: &str| {
        let scalar = ["s_mov", "s_cmov", "s_load", "s_buffer", "s_waitcnt", "s_clause", "s_nop", "s_cbranch"];
        !op.starts_with("s_") || scalar.iter().any(|start| op.starts_with(start))
    };
    let same =
        after.iter().all(|i| keeps(&i.op) && !i.writes().iter().any(|r| comparison.names().contains(r)));
    same.then(|| (comparison.text(), when))
}

fn registers(text: &str) -> Vec<u16> {
    let words = text.split([' ', ',']).filter_map(|word| word.strip_prefix('s'));
    words.filter_map(|number| number.parse().ok()).collect()
}

impl Loop {
    fn new(blocks: &[Block], head: usize, closes: HashSet<usize>) -> Loop {
        let mut within = HashSet::from([head]);
        let mut waiting: Vec<usize> = closes.iter().copied().collect();
        while let Some(at) = waiting.pop() {
            if within.insert(at) {
                waiting.extend((0..blocks.len()).filter(|&before| blocks[before].next.contains(&at)));
            }
        }
        Loop { head, blocks: within, closes }
    }
}

/// For each block those that stand on every way to it, itself among them.
fn dominators(blocks: &[Block]) -> Vec<HashSet<usize>> {
    let mut before = vec![Vec::new(); blocks.len()];
    for (at, block) in blocks.iter().enumerate() {
        block.next.iter().for_each(|&next| before[next].push(at));
    }
    let all: HashSet<usize> = (0..blocks.len()).collect();
    let mut dominators = vec![all; blocks.len()];
    if let Some(first) = dominators.first_mut() {
        *first = HashSet::from([0]);
    }
    loop {
        let mut changed = false;
        for at in 1..blocks.len() {
            let mut common = before[at].iter().map(|&b| &dominators[b]);
            let mut own = common.next().cloned().unwrap_or_default();
            common.for_each(|other| own.retain(|d| other.contains(d)));
            own.insert(at);
            if own != dominators[at] {
                dominators[at] = own;
                changed = true;
            }
        }
        if !changed {
            return dominators;
        }
    }
}
