//! The way that a whole chunk takes at full speed, and what is counted on it.
//!
//! A listing has no trip counts and says nothing of which branch is rare. What is taken as the hot part is the loop
//! whose turn moves most bytes of slots, or the code outside of loops where that moves more; on the way through it
//! most bytes win, then most of the instructions that the kernel is for, then fewest instructions, so that no rare case (non-finite elements, other outcomes) is entered. Branches on the same comparison of registers that
//! were not written since go the same way, and where no lane takes one side of a branch some take the other. Before
//! and after the hot part the cheapest way is taken; loops there that touch no slot take as many turns as the hot one.
//! A loop that only fetches, with one around it that does more, is taken for one turn of that. So the counts are those of a
//! wave none of whose elements is special.

use crate::graph::{Graph, Loop, Score, Through};
use crate::listing::{Does, blocks};

/// How many elements a kernel takes and what it moves for one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Work<'a> {
    /// Elements an invocation sees of a whole chunk, where that is a fixed number.
    pub(crate) elements: Option<u32>,
    /// Bytes of slots loaded for an element.
    pub(crate) loaded: u32,
    /// Whether the device counts stores with loads, as GFX9 does; later ones have a counter for each.
    pub(crate) one_counter: bool,
    /// What full speed goes through: what multiplies, where other outcomes are cheaper and move as much.
    pub(crate) through: Through<'a>,
}

/// A loop, if it is one, with what a turn of it scores and goes through.
type Way<'a> = (Option<&'a Loop>, Score, Vec<usize>);

/// Loads on their way at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flight {
    pub(crate) loads: u32,
    pub(crate) bytes: u32,
}

/// What is counted, a lane.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Counts {
    /// Elements a turn of the hot part.
    pub(crate) elements: f64,
    /// Vector instructions an element in it.
    pub(crate) vector: f64,
    /// Scalar ones.
    pub(crate) scalar: f64,
    /// Vector instructions an element from the first to the last of the shader, where the number of elements is
    /// known.
    pub(crate) whole: Option<f64>,
    /// The most loads of slots on their way at once in the hot part, by bytes.
    pub(crate) flight: Flight,
    /// Numbers of the blocks of a turn, in the order of the listing's labels.
    pub(crate) way: Vec<usize>,
}

/// Counts of a listing; none where it touches no slots.
pub(crate) fn counts(listing: &str, work: Work<'_>) -> Option<Counts> {
    let graph = Graph::new(blocks(listing), work.through);
    if (0..graph.blocks.len()).all(|at| graph.score(at).bytes == 0) {
        return None;
    }
    let touches = |l: &Loop| l.blocks.iter().any(|&at| graph.score(at).bytes > 0);
    let (busy, idle): (Vec<&Loop>, Vec<&Loop>) = graph.loops.iter().partition(|l| touches(l));
    let ends = |at: usize| graph.blocks[at].next.is_empty();
    // What a loop within moves is not moved by a turn of the one around it.
    let outside = |around: Option<usize>| {
        let (busy, graph) = (&busy, &graph);
        move |at: usize| {
            let score = graph.score(at);
            let inner =
                |l: &&Loop| Some(l.head) != around && around.is_none_or(|head| !l.blocks.contains(&head));
            let within = busy.iter().any(|l| inner(l) && l.blocks.contains(&at));
            if within { Score { bytes: 0, does: 0, ..score } } else { score }
        }
    };
    let total = |way: &[usize], score: &dyn Fn(usize) -> Score| {
        way.iter().fold(Score::default(), |sum, &at| sum.then(score(at), work.through.most))
    };
    let straight = graph.best(0, &|_| true, &ends, &outside(None)).unwrap_or_default();
    let turns = busy.iter().filter_map(|&l| {
        let own = outside(Some(l.head));
        let way = graph.round(l, &own)?;
        Some((Some(l), total(&way, &own), way))
    });
    let mut ways = vec![(None, total(&straight, &outside(None)), straight)];
    ways.extend(turns);
    // Those that only fetch, and fetch as much as the best, give way to what is around them.
    let most = ways.iter().map(|way| way.1.bytes).max().unwrap_or_default();
    let fetching = ways.iter().filter(|way| way.1.bytes == most && way.1.does == 0);
    let working = fetching.filter_map(|(l, score, _)| works_around(&graph, &busy, (*l)?, score.vector));
    let working = working.map(|(l, way)| (Some(l), total(&way, &|at| graph.score(at)), way));
    let hot = working.max_by_key(|way| way.1.vector).or_else(|| ways.into_iter().reduce(better));
    let (hot_loop, score, way) = hot?;
    if score.bytes == 0 {
        return None;
    }
    let loaded = sum(&graph, &way, |does| if let Does::Load(bytes) = does { bytes } else { 0 });
    let elements = f64::from(loaded) / f64::from(work.loaded.max(1));
    let vector = f64::from(score.vector);
    let scalar = f64::from(score.scalar);
    let turns = work.elements.map(|all| if hot_loop.is_some() { f64::from(all) / elements } else { 1.0 });
    let around = |turns: f64| around(&graph, hot_loop, &way, &idle, turns);
    Some(Counts {
        elements,
        vector: vector / elements,
        scalar: scalar / elements,
        whole: turns.and_then(|turns| Some(around(turns)? / f64::from(work.elements?))),
        flight: flight(&graph, &way, hot_loop.is_some(), work.one_counter),
        way,
    })
}

fn better<'a>(a: Way<'a>, b: Way<'a>) -> Way<'a> {
    if b.1.beats(a.1) { b } else { a }
}

/// The smallest loop around one that only fetches: itself it does more.
fn works_around<'a>(
    graph: &Graph,
    busy: &[&'a Loop],
    within: &Loop,
    vector: u32,
) -> Option<(&'a Loop, Vec<usize>)> {
    let own = |at: usize| if within.blocks.contains(&at) { 0 } else { graph.score(at).vector };
    let around = busy.iter().copied().filter(|l| l.head != within.head && l.blocks.contains(&within.head));
    let l = around.min_by_key(|l| l.blocks.len())?;
    let way = graph.round(l, &|at| graph.score(at))?;
    (way.iter().map(|&at| own(at)).sum::<u32>() > vector).then_some((l, way))
}

/// Over accesses to slots.
fn sum(graph: &Graph, way: &[usize], of: impl Fn(Does) -> u32) -> u32 {
    let instructions = way.iter().flat_map(|&at| &graph.blocks[at].instructions);
    instructions.filter(|i| i.group == Some(1)).map(|i| of(i.does)).sum()
}

/// Vector instructions from the first to the last.
fn around(graph: &Graph, hot: Option<&Loop>, way: &[usize], idle: &[&Loop], turns: f64) -> Option<f64> {
    let cheap = |at: usize| Score { bytes: 0, does: 0, ..graph.score(at) };
    let count = |way: &[usize]| f64::from(way.iter().map(|&at| graph.score(at).vector).sum::<u32>());
    let mut sum = 0.0;
    let mut passed = way.to_vec();
    match hot {
        None => sum += count(way),
        Some(l) => {
            let head = graph.best(0, &|_| true, &|at| at == l.head, &cheap)?;
            let tail = tail(graph, l.head, &cheap)?;
            // A loop that is left at its end has made its last turn on the way out.
            let last = tail.iter().any(|&at| graph.score(at).bytes > 0);
            sum += count(&head[..head.len() - 1]) + count(&tail);
            sum += (turns - f64::from(u8::from(last))) * count(way);
            passed = [head, tail].concat();
        }
    }
    for l in
        idle.iter().filter(|l| passed.contains(&l.head) && hot.is_none_or(|h| !h.blocks.contains(&l.head)))
    {
        sum += turns * graph.round(l, &cheap).map_or(0.0, |way| count(&way));
    }
    Some(sum)
}

/// The cheapest way to the end. Some loops are left at their first block alone: then it goes once more through that.
fn tail(graph: &Graph, from: usize, cheap: &dyn Fn(usize) -> Score) -> Option<Vec<usize>> {
    let ends = |at: usize| graph.blocks[at].next.is_empty();
    if let Some(way) = graph.best(from, &|_| true, &ends, cheap) {
        return Some(way);
    }
    let around = graph.loops.iter().filter(|l| l.head != from && l.blocks.contains(&from));
    let l = around.min_by_key(|l| l.blocks.len())?;
    let back = graph.best(from, &|at| l.blocks.contains(&at), &|at| l.closes.contains(&at), cheap)?;
    Some([back, tail(graph, l.head, cheap)?].concat())
}

/// The most that is on its way at once: loads are in flight until a wait leaves fewer outstanding. A loop is
/// followed for two turns.
fn flight(graph: &Graph, way: &[usize], turns: bool, one_counter: bool) -> Flight {
    let mut most = Flight::default();
    let mut waiting: Vec<Option<u32>> = Vec::new();
    let once = way.iter().flat_map(|&at| &graph.blocks[at].instructions);
    for instruction in once.clone().chain(once.take(if turns { usize::MAX } else { 0 })) {
        match instruction.does {
            Does::Load(bytes) => waiting.push((instruction.group == Some(1)).then_some(bytes)),
            Does::Store(_) if one_counter => waiting.push(None),
            Does::Wait(left) => {
                waiting.drain(..waiting.len().saturating_sub(left as usize));
            }
            _ => {}
        }
        let loads = waiting.iter().flatten();
        let now = Flight { loads: loads.clone().count() as u32, bytes: loads.sum() };
        if now.bytes > most.bytes {
            most = now;
        }
    }
    most
}
