//! Sparse gradients: entries of rows of a table.

use gradclip::ClipError;
use gradclip::cpu::{self, Coalesced};

use crate::inputs::{Distribution, Random, data};
use crate::tensor::{Data, Element};

/// Which rows entries name.
#[derive(Clone, Copy, Debug)]
pub enum Naming {
    /// Any, alike.
    Any,
    /// The row of `k` about `1 / k` as often as the first: words of a language (Zipf 1949).
    Words,
    /// One alone.
    One(u32),
    /// Each its own, from the last on.
    Each,
}

/// Entries of a table, with what a device is told of them.
#[derive(Clone, Debug)]
pub struct Entries {
    /// A row each.
    pub indices: Vec<u32>,
    /// Row-major.
    pub values: Data,
    /// Rows and width.
    pub table: [usize; 2],
    /// How many hold, where a buffer says so.
    pub count: Option<u32>,
}

impl Entries {
    /// So many, all of which hold.
    pub fn new(
        naming: Naming,
        entries: usize,
        table: [usize; 2],
        element: Element,
        kind: Distribution,
        seed: u64,
    ) -> Entries {
        let mut random = Random(seed);
        let mut row = |i: usize| match naming {
            Naming::Any => random.below(table[0]),
            Naming::Words => (table[0] as f64).powf((random.unit_f64() + 1.0) / 2.0) as usize - 1,
            Naming::One(row) => row as usize,
            Naming::Each => table[0] - 1 - i % table[0],
        };
        let indices = (0..entries).map(|i| row(i).min(table[0] - 1) as u32).collect();
        let values = Data::rounded(element, &data(kind, entries * table[1], seed));
        Entries { indices, values, table, count: None }
    }

    /// Those that hold and name a row of the table, and how many others there are.
    pub fn valid(&self) -> (Entries, u32) {
        let [rows, width] = self.table;
        let given = self.count.map_or(self.indices.len(), |count| count as usize);
        let holds = |i: &usize| (self.indices[*i] as usize) < rows;
        let kept: Vec<usize> = (0..given.min(self.indices.len())).filter(holds).collect();
        let size = self.values.dtype().size() as usize * width;
        let values: Vec<u8> =
            kept.iter().flat_map(|i| &self.values.bytes()[i * size..(i + 1) * size]).copied().collect();
        let valid = Entries {
            indices: kept.iter().map(|&i| self.indices[i]).collect(),
            values: Data::from_bytes(self.values.element(), &values),
            count: None,
            ..*self
        };
        (valid, (given - kept.len()) as u32)
    }

    /// In another order.
    #[must_use]
    pub fn shuffled(&self, seed: u64) -> Entries {
        let mut order: Vec<usize> = (0..self.indices.len()).collect();
        Random(seed).shuffle(&mut order);
        let size = self.values.dtype().size() as usize * self.table[1];
        let values: Vec<u8> =
            order.iter().flat_map(|i| &self.values.bytes()[i * size..(i + 1) * size]).copied().collect();
        Entries {
            indices: order.iter().map(|&i| self.indices[i]).collect(),
            values: Data::from_bytes(self.values.element(), &values),
            ..*self
        }
    }

    /// Added on the CPU path.
    ///
    /// # Errors
    ///
    /// What the library refuses.
    pub fn coalesced(&self) -> Result<Coalesced, ClipError> {
        cpu::coalesce("table", &self.indices, self.values.slice(), self.table)
    }
}
