//! Chunks into windows, windows into dispatches, and the words that chunks share.

use std::collections::HashMap;
use std::ops::Range;

use super::{Dispatch, LARGEST_WINDOW, Placement, PlanLimits, Window, grid};
use crate::error::PlanError;
use crate::grad::DType;
use crate::layout::{CHUNK, ChunkRow, LEN_BITS, NONE, SeamRow};

/// One chunk before its dispatch is known.
pub(super) struct Chunk {
    tensor: u32,
    partial: u32,
    buffer: usize,
    dtype: DType,
    begin: u64,
    len: u32,
}

impl Chunk {
    fn end(&self) -> u64 {
        self.begin + u64::from(self.len) * self.dtype.size()
    }
}

/// A window and the chunks in it, as a range of the sorted chunks.
struct Filled {
    window: Window,
    dtype: DType,
    chunks: Range<usize>,
}

/// All chunks, sorted by element type, buffer and offset.
pub(super) fn cut(tensors: &[Placement], counts: &[u32]) -> Vec<Chunk> {
    let mut chunks = Vec::with_capacity(counts.iter().map(|&c| c as usize).sum());
    for (i, (t, &count)) in tensors.iter().zip(counts).enumerate() {
        for k in 0..u64::from(count) {
            let first = k * u64::from(CHUNK);
            chunks.push(Chunk {
                tensor: i as u32,
                partial: chunks.len() as u32,
                buffer: t.buffer,
                dtype: t.dtype,
                begin: t.offset + first * t.dtype.size(),
                len: (t.elements - first).min(u64::from(CHUNK)) as u32,
            });
        }
    }
    chunks.sort_by_key(|c| (c.dtype as u32, c.buffer, c.begin));
    chunks
}

/// Merges neighbouring chunks of one buffer into windows as large as a binding may be.
fn windows(chunks: &[Chunk], limits: &PlanLimits) -> Vec<Filled> {
    let largest = limits.max_binding.min(LARGEST_WINDOW);
    let mut filled: Vec<Filled> = Vec::new();
    for (i, c) in chunks.iter().enumerate() {
        let end = c.end().next_multiple_of(4);
        if let Some(last) = filled.last_mut()
            && (last.dtype, last.window.buffer) == (c.dtype, c.buffer)
            && end - last.window.offset <= largest
        {
            last.window.size = end - last.window.offset;
            last.chunks.end = i + 1;
            continue;
        }
        let offset = c.begin - c.begin % limits.alignment;
        let window = Window { buffer: c.buffer, offset, size: end - offset };
        filled.push(Filled { window, dtype: c.dtype, chunks: i..i + 1 });
    }
    filled
}

/// Packs windows into dispatches, each into the first of its element type that has room and no
/// window overlapping it: a window that begins inside its neighbour's last alignment goes into
/// another dispatch.
fn pack(filled: Vec<Filled>, limits: &PlanLimits) -> Vec<Vec<Filled>> {
    let slots = limits.slots as usize;
    let mut groups: Vec<Vec<Filled>> = Vec::new();
    let mut first_open = 0;
    for f in filled {
        while groups.get(first_open).is_some_and(|g| g.len() == slots) {
            first_open += 1;
        }
        let joins = |g: &Vec<Filled>| {
            g.len() < slots && g.iter().all(|o| o.dtype == f.dtype && !o.window.overlaps(&f.window))
        };
        match groups[first_open..].iter().position(joins) {
            Some(i) => groups[first_open + i].push(f),
            None => groups.push(vec![f]),
        }
    }
    groups
}

pub(super) fn dispatches(
    chunks: &[Chunk],
    segment_of: &[u32],
    limits: &PlanLimits,
) -> Result<Packed, PlanError> {
    let mut rows = Vec::with_capacity(chunks.len());
    let mut seams = Seams::default();
    let mut dispatches = Vec::new();
    for group in pack(windows(chunks, limits), limits) {
        let (first_row, first_seam) = (rows.len() as u32, seams.rows.len() as u32);
        for (slot, f) in group.iter().enumerate() {
            for c in &chunks[f.chunks.clone()] {
                let segment = segment_of[c.tensor as usize];
                let start = ((c.begin - f.window.offset) / c.dtype.size()) as u32;
                if c.dtype.size() == 2 {
                    seams.add(c, f, slot as u32, start, segment);
                }
                let slot_len = ((slot as u32) << LEN_BITS) | c.len;
                rows.push(ChunkRow { start, slot_len, partial: c.partial, segment });
            }
        }
        let range = first_row..rows.len() as u32;
        let seam_range = first_seam..seams.rows.len() as u32;
        dispatches.push(Dispatch {
            dtype: group[0].dtype,
            grid: grid(range.len() as u64, limits)?,
            windows: group.iter().map(|f| f.window).collect(),
            rows: range,
            seam_grid: grid((seam_range.len() as u64).div_ceil(u64::from(limits.workgroup_size)), limits)?,
            seams: seam_range,
        });
    }
    Ok(Packed { dispatches, rows, seams: seams.rows })
}

/// All dispatches of the chunk kernels with their rows.
pub(super) struct Packed {
    pub(super) dispatches: Vec<Dispatch>,
    pub(super) rows: Vec<ChunkRow>,
    pub(super) seams: Vec<SeamRow>,
}

/// The shared words found so far. A word belongs to the dispatch where its first half is met; the
/// other half joins it there.
#[derive(Default)]
struct Seams {
    rows: Vec<SeamRow>,
    /// Element type, buffer and byte offset of a word, to its row.
    met: HashMap<(DType, usize, u64), usize>,
}

impl Seams {
    fn add(&mut self, chunk: &Chunk, filled: &Filled, slot: u32, start: u32, segment: u32) {
        let end = start + chunk.len;
        if start % 2 == 1 {
            self.row(chunk, filled, slot, start / 2).high = segment;
        }
        if end % 2 == 1 {
            self.row(chunk, filled, slot, end / 2).low = segment;
        }
    }

    fn row(&mut self, chunk: &Chunk, filled: &Filled, slot: u32, word: u32) -> &mut SeamRow {
        let key = (chunk.dtype, chunk.buffer, filled.window.offset + u64::from(word) * 4);
        let row = *self.met.entry(key).or_insert_with(|| {
            self.rows.push(SeamRow { slot, word, low: NONE, high: NONE });
            self.rows.len() - 1
        });
        &mut self.rows[row]
    }
}
