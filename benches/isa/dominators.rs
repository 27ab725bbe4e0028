//! Which blocks stand before which.

use crate::listing::Block;

/// Where each block is reached from.
pub(crate) fn predecessors(blocks: &[Block]) -> Vec<Vec<usize>> {
    let mut before = vec![Vec::new(); blocks.len()];
    for (at, block) in blocks.iter().enumerate() {
        block.next.iter().for_each(|&next| before[next].push(at));
    }
    before
}

/// The nearest block that stands on every way to each (Cooper, Harvey and Kennedy 2001).
pub(crate) struct Dominators {
    /// Place of a block when each stands before what it leads to, loops aside; none for what is never reached.
    place: Vec<Option<usize>>,
    nearest: Vec<usize>,
}

impl Dominators {
    pub(crate) fn new(blocks: &[Block]) -> Dominators {
        let order = order(blocks);
        let mut place = vec![None; blocks.len()];
        order.iter().enumerate().for_each(|(i, &at)| place[at] = Some(i));
        let before = predecessors(blocks);
        let mut nearest = vec![usize::MAX; blocks.len()];
        if let Some(&first) = order.first() {
            nearest[first] = first;
        }
        let mut own = Dominators { place, nearest };
        loop {
            let mut changed = false;
            for &at in order.iter().skip(1) {
                let known = before[at].iter().copied().filter(|&b| own.nearest[b] != usize::MAX);
                if let Some(common) = known.reduce(|a, b| own.common(a, b))
                    && own.nearest[at] != common
                {
                    own.nearest[at] = common;
                    changed = true;
                }
            }
            if !changed {
                return own;
            }
        }
    }

    fn common(&self, mut a: usize, mut b: usize) -> usize {
        while a != b {
            if self.place[a] > self.place[b] { a = self.nearest[a] } else { b = self.nearest[b] }
        }
        a
    }

    /// Whether `a` stands on every way to `b`.
    pub(crate) fn has(&self, a: usize, b: usize) -> bool {
        self.place[a].is_some() && self.place[b].is_some() && self.common(a, b) == a
    }
}

/// Blocks that are reached, each before those it leads to, loops aside.
pub(crate) fn order(blocks: &[Block]) -> Vec<usize> {
    let mut seen = vec![false; blocks.len()];
    let mut done = Vec::new();
    let mut waiting = vec![(0, 0)];
    while let Some((at, next)) = waiting.pop() {
        let Some(block) = blocks.get(at) else { continue };
        if next == 0 && std::mem::replace(&mut seen[at], true) {
            continue;
        }
        match block.next.get(next) {
            Some(&to) => {
                waiting.push((at, next + 1));
                waiting.push((to, 0));
            }
            None => done.push(at),
        }
    }
    done.reverse();
    done
}
