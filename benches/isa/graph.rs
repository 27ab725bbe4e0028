//! The ways through a listing: loops, and the best way from one block to others.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::dominators::{Dominators, order, predecessors};
use crate::listing::{Block, Does, Instruction};

/// More states than this are no search any more.
const MOST_STATES: usize = 300_000;

/// Where blocks lead, without the edges that close loops.
pub(crate) struct Graph {
    pub(crate) blocks: Vec<Block>,
    scores: Vec<Score>,
    /// Successors, but for those that dominate the block.
    forward: Vec<Vec<usize>>,
    pub(crate) loops: Vec<Loop>,
    changes: Vec<Change>,
    /// What the branch at a block's end tests, and whether it branches where that holds.
    tests: Vec<Option<(u32, bool)>>,
    /// For each comparison those that cannot hold with it.
    excludes: Vec<u128>,
    /// What is tested from a block on; nothing else has to be remembered.
    tested_later: Vec<u128>,
    /// How many of the instructions that it should go through count.
    most: u32,
}

/// A loop: all blocks from which its first one can be reached again without leaving it.
pub(crate) struct Loop {
    pub(crate) head: usize,
    pub(crate) blocks: HashSet<usize>,
    /// Blocks from which it goes back to the first.
    pub(crate) closes: HashSet<usize>,
}

/// How good a way is: more bytes of slots first, then more of what it should do, then fewer instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Score {
    pub(crate) bytes: u32,
    pub(crate) does: u32,
    pub(crate) vector: u32,
    pub(crate) scalar: u32,
}

/// What the hot part does: how the names of its instructions begin, and how many of them count.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Through<'a> {
    pub(crate) names: &'a [&'a str],
    pub(crate) most: u32,
}

impl Score {
    pub(crate) fn beats(self, other: Score) -> bool {
        let key = |s: Score| (s.bytes, s.does, std::cmp::Reverse(s.vector + s.scalar));
        key(self) > key(other)
    }

    pub(crate) fn then(self, other: Score, most: u32) -> Score {
        Score {
            bytes: self.bytes + other.bytes,
            does: (self.does + other.does).min(most),
            vector: self.vector + other.vector,
            scalar: self.scalar + other.scalar,
        }
    }

    fn of(block: &Block, through: Through<'_>) -> Score {
        let mut score = Score::default();
        for instruction in &block.instructions {
            let does = through.names.iter().any(|name| instruction.op.starts_with(name));
            score.does = (score.does + u32::from(does)).min(through.most);
            match instruction.does {
                Does::Vector => score.vector += 1,
                Does::Scalar => score.scalar += 1,
                Does::Load(bytes) | Does::Store(bytes) if instruction.group == Some(1) => {
                    score.bytes += bytes
                }
                _ => {}
            }
        }
        score
    }
}

/// What is known on a way, a bit each: that a comparison of scalar registers held, at bit 0 that some lane is
/// active.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Known {
    decided: u128,
    holds: u128,
}

/// The bit of the test whether some lane is active.
const LANES: u32 = 0;

impl Known {
    fn get(self, bit: u32) -> Option<bool> {
        (self.decided >> bit & 1 == 1).then_some(self.holds >> bit & 1 == 1)
    }

    fn with(self, bit: u32, holds: Option<bool>) -> Known {
        let one = 1 << bit;
        Known {
            decided: if holds.is_some() { self.decided | one } else { self.decided & !one },
            holds: if holds == Some(true) { self.holds | one } else { self.holds & !one },
        }
    }

    fn only(self, bits: u128) -> Known {
        Known { decided: self.decided & bits, holds: self.holds & bits }
    }
}

/// How a block changes what is known.
#[derive(Clone, Copy, Debug)]
struct Change {
    forgets: u128,
    /// Whether lanes are active after it, where it was unknown, where none was, where some were.
    lanes: [Option<bool>; 3],
}

impl Change {
    fn of(block: &Block, comparisons: &[Instruction]) -> Change {
        let mut change = Change { forgets: 0, lanes: [None, Some(false), Some(true)] };
        for instruction in &block.instructions {
            let written = instruction.writes();
            for (bit, comparison) in (1..).zip(comparisons) {
                if comparison.names().iter().any(|register| written.contains(register)) {
                    change.forgets |= 1 << bit;
                }
            }
            if instruction.takes_others() {
                // The other lanes of those that were saved: where none went one way, some go this one.
                change.lanes = change.lanes.map(|lanes| if lanes == Some(false) { Some(true) } else { None });
            } else if instruction.changes_lanes() {
                change.lanes = [None; 3];
            }
        }
        change
    }

    fn after(&self, known: Known) -> Known {
        let before = known.get(LANES).map_or(0, |some| 1 + usize::from(some));
        known.only(!self.forgets).with(LANES, self.lanes[before])
    }
}

impl Graph {
    pub(crate) fn new(blocks: Vec<Block>, through: Through<'_>) -> Graph {
        let dominators = Dominators::new(&blocks);
        let mut forward: Vec<Vec<usize>> = Vec::new();
        let mut closed: BTreeMap<usize, HashSet<usize>> = BTreeMap::new();
        for (at, block) in blocks.iter().enumerate() {
            let (back, on): (Vec<usize>, Vec<usize>) =
                block.next.iter().partition(|&&next| dominators.has(next, at));
            back.into_iter().for_each(|head| {
                closed.entry(head).or_default().insert(at);
            });
            forward.push(on);
        }
        let before = predecessors(&blocks);
        let loops = closed.into_iter().map(|(head, closes)| Loop::new(&before, head, closes)).collect();
        let comparisons = repeated(&blocks);
        let bit =
            |text: &str| (1..).zip(&comparisons).find(|(_, own)| own.text() == text).map(|(bit, _)| bit);
        let test = |block: &Block| match tested(block)? {
            (None, when) => Some((LANES, when)),
            (Some(comparison), when) => Some((bit(&comparison.text())?, when)),
        };
        let tests: Vec<_> = blocks.iter().map(test).collect();
        let mut tested_later = vec![0; blocks.len()];
        for at in order(&blocks).into_iter().rev() {
            let own = tests[at].map_or(0, |(bit, _)| 1 << bit);
            tested_later[at] = forward[at].iter().fold(own, |later, &next| later | tested_later[next]);
        }
        Graph {
            excludes: excludes(&comparisons),
            most: through.most,
            tests,
            tested_later,
            scores: blocks.iter().map(|block| Score::of(block, through)).collect(),
            changes: blocks.iter().map(|block| Change::of(block, &comparisons)).collect(),
            blocks,
            forward,
            loops,
        }
    }

    pub(crate) fn score(&self, at: usize) -> Score {
        self.scores[at]
    }

    /// The best way from the start to a block for which `ends`, over those for which `within`, each weighed by
    /// `score`. None where there is no way, or there are too many.
    pub(crate) fn best(
        &self,
        start: usize,
        within: &dyn Fn(usize) -> bool,
        ends: &dyn Fn(usize) -> bool,
        score: &dyn Fn(usize) -> Score,
    ) -> Option<Vec<usize>> {
        let mut search = Search { graph: self, within, ends, score, ways: HashMap::new() };
        let mut state = (start, Known::default());
        search.from(state)?;
        let mut way = vec![start];
        while let Some(Some((_, Some(next)))) = search.ways.get(&state) {
            way.push(next.0);
            state = *next;
        }
        (search.ways.len() < MOST_STATES).then_some(way)
    }

    /// The best way once round a loop.
    pub(crate) fn round(&self, of: &Loop, score: &dyn Fn(usize) -> Score) -> Option<Vec<usize>> {
        self.best(of.head, &|at| of.blocks.contains(&at), &|at| of.closes.contains(&at), score)
    }
}

type State = (usize, Known);

struct Search<'a> {
    graph: &'a Graph,
    within: &'a dyn Fn(usize) -> bool,
    ends: &'a dyn Fn(usize) -> bool,
    score: &'a dyn Fn(usize) -> Score,
    /// The score of the best way on, and where it goes next.
    ways: HashMap<State, Option<(Score, Option<State>)>>,
}

impl Search<'_> {
    fn from(&mut self, state: State) -> Option<Score> {
        let (at, known) = state;
        if !(self.within)(at) || self.ways.len() >= MOST_STATES {
            return None;
        }
        if let Some(way) = self.ways.get(&state) {
            return way.map(|(score, _)| score);
        }
        let graph = self.graph;
        let known = graph.changes[at].after(known);
        let mut best: Option<(Score, Option<State>)> = (self.ends)(at).then(Default::default);
        for &next in &graph.forward[at] {
            let mut known = known;
            if let Some((bit, when)) = graph.tests[at] {
                // The branch's target is the last of the successors.
                let holds = (graph.blocks[at].next.last() == Some(&next)) == when;
                if known.get(bit).is_some_and(|before| before != holds) {
                    continue;
                }
                known = known.with(bit, Some(holds));
                if holds {
                    // Of other values the same register is not.
                    known.decided |= graph.excludes[bit as usize];
                    known.holds &= !graph.excludes[bit as usize];
                }
            }
            let known = known.only(graph.tested_later[next]);
            if let Some(score) = self.from((next, known))
                && best.is_none_or(|(other, _)| score.beats(other))
            {
                best = Some((score, Some((next, known))));
            }
        }
        let own = (self.score)(at);
        let best = best.map(|(score, next)| (own.then(score, graph.most), next));
        self.ways.insert(state, best);
        best.map(|(score, _)| score)
    }
}

/// What the branch at a block's end tests, a comparison or whether lanes are active, and whether it branches where
/// that holds.
fn tested(block: &Block) -> Option<(Option<&Instruction>, bool)> {
    let when = match block.instructions.last()?.op.as_str() {
        "s_cbranch_execz" => return Some((None, false)),
        "s_cbranch_execnz" => return Some((None, true)),
        "s_cbranch_scc0" => false,
        "s_cbranch_scc1" => true,
        _ => return None,
    };
    let at = block.instructions.iter().rposition(Instruction::compares)?;
    let (comparison, after) = block.instructions[at..].split_first()?;
    let names = comparison.names();
    let same = after
        .iter()
        .all(|i| i.keeps_condition() && !i.writes().iter().any(|register| names.contains(register)));
    same.then_some((Some(comparison), when))
}

/// Comparisons worth remembering: those that stand before more than one branch, which go the same way as long as
/// the registers compared are not written, and those of one register with several constants, of which one holds.
fn repeated(blocks: &[Block]) -> Vec<Instruction> {
    let mut seen: BTreeMap<String, (usize, &Instruction)> = BTreeMap::new();
    let mut compared: HashMap<&str, HashSet<&str>> = HashMap::new();
    for comparison in blocks.iter().filter_map(|block| tested(block)?.0) {
        seen.entry(comparison.text()).or_insert((0, comparison)).0 += 1;
        if let Some((register, constant)) = comparison.equality() {
            compared.entry(register).or_default().insert(constant);
        }
    }
    let cases = |i: &Instruction| {
        i.equality().and_then(|(register, _)| compared.get(register)).map_or(0, HashSet::len)
    };
    let worth = seen.into_values().filter(|(times, comparison)| *times > 1 || cases(comparison) > 1);
    worth.map(|(_, comparison)| comparison.clone()).take(127).collect()
}

fn excludes(comparisons: &[Instruction]) -> Vec<u128> {
    let mut all = vec![0];
    for own in comparisons {
        let others = (1..).zip(comparisons).filter(|(_, other)| match (own.equality(), other.equality()) {
            (Some((a, x)), Some((b, y))) => a == b && x != y,
            _ => false,
        });
        all.push(others.fold(0, |bits, (bit, _)| bits | 1 << bit));
    }
    all
}

impl Loop {
    fn new(before: &[Vec<usize>], head: usize, closes: HashSet<usize>) -> Loop {
        let mut within = HashSet::from([head]);
        let mut waiting: Vec<usize> = closes.iter().copied().collect();
        while let Some(at) = waiting.pop() {
            if within.insert(at) {
                waiting.extend(&before[at]);
            }
        }
        Loop { head, blocks: within, closes }
    }
}
