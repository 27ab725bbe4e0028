//! Pieces of tensors into windows, windows into dispatches, and the words that pieces share.

use std::collections::HashMap;
use std::ops::Range;

use crate::error::PlanError;
use crate::layout::{CHUNK, COLUMNS, ChunkRow, LEN_BITS, MapRow, NONE, SeamRow, TEAM, UnitRow};
use crate::segments::{Owner, UnitView};
use crate::tensor::DType;

use super::dispatch::{Dispatch, LARGEST_WINDOW, Window, grid};
use super::limits::{LONG_UNIT, PlanLimits};
use super::placed::Placed;

/// What one row of a table works on, before its dispatch is known.
struct Piece<'a> {
    placed: &'a Placed<'a>,
    /// Bytes of the buffer.
    begin: u64,
    end: u64,
    part: Part,
}

#[derive(Clone, Copy)]
enum Part {
    /// Neighbouring elements that add up to one partial.
    Chunk { partial: u32, segment: u32 },
    /// Neighbouring elements from this one on, of several units.
    Mapped { first: u64 },
    /// A chunk of several units.
    Units { first_unit: u32, units: u32, first: u32, len: u32, partial: u32 },
}

/// A window and the pieces in it, as a range of the sorted pieces.
struct Filled {
    window: Window,
    dtype: DType,
    vectors: bool,
    pieces: Range<usize>,
}

/// All dispatches with their rows.
#[derive(Default)]
pub(super) struct Packed {
    pub(super) both: Vec<Dispatch>,
    pub(super) measured: Vec<Dispatch>,
    pub(super) rows: Vec<ChunkRow>,
    pub(super) units: Vec<Dispatch>,
    pub(super) unit_rows: Vec<UnitRow>,
    pub(super) mapped: Vec<Dispatch>,
    pub(super) map_rows: Vec<MapRow>,
    pub(super) seams: Vec<SeamRow>,
}

pub(super) fn rows(placed: &[Placed<'_>], limits: &PlanLimits) -> Result<Packed, PlanError> {
    let (mut both, mut measured, mut units, mut mapped) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for p in placed {
        match p.owner {
            Owner::One(segment) if p.measured => chunks(p, segment, &mut measured),
            Owner::One(segment) => chunks(p, segment, &mut both),
            Owner::Units { first, view } => {
                let few = view.units < u64::from(limits.workgroup_size);
                let long = if few { LONG_UNIT.min(limits.long_unit) } else { limits.long_unit };
                if view.contiguous() && view.len >= long {
                    long_units(p, first, &view, &mut measured);
                } else {
                    side_by_side(p, &view, limits, &mut units)?;
                }
                if !p.measured {
                    map(p, &mut mapped);
                }
            }
        }
    }
    let mut packed = Packed::default();
    let mut seams = Seams::default();
    packed.both = dispatches(both, limits, &mut packed.rows, Some(&mut seams), chunk_row)?;
    packed.measured = dispatches(measured, limits, &mut packed.rows, None, chunk_row)?;
    packed.units = dispatches(units, limits, &mut packed.unit_rows, None, unit_row)?;
    packed.mapped = dispatches(mapped, limits, &mut packed.map_rows, Some(&mut seams), map_row)?;
    packed.seams = seams.rows;
    Ok(packed)
}

/// The runs of at most a chunk that `elements` elements from `first` on are cut into: first element
/// of each, and length.
pub(super) fn runs(elements: u64) -> impl Iterator<Item = (u64, u32)> {
    (0..elements)
        .step_by(CHUNK as usize)
        .map(move |first| (first, (elements - first).min(u64::from(CHUNK)) as u32))
}

/// Bytes of the widest loads and stores.
const VECTOR: u64 = 16;

impl<'a> Piece<'a> {
    /// Whether it consists of whole vectors, so that none is shared with what lies next to it.
    fn has_whole_vectors(&self) -> bool {
        matches!(self.part, Part::Chunk { .. })
            && self.begin.is_multiple_of(VECTOR)
            && self.end.is_multiple_of(VECTOR)
    }

    fn of(placed: &'a Placed<'a>, first: u64, len: u32, part: Part) -> Piece<'a> {
        let size = placed.at.dtype.size();
        let begin = placed.at.offset + first * size;
        Piece { placed, begin, end: begin + u64::from(len) * size, part }
    }
}

fn chunks<'a>(p: &'a Placed<'a>, segment: u32, pieces: &mut Vec<Piece<'a>>) {
    for ((first, len), partial) in runs(p.at.elements).zip(p.first_partial..) {
        pieces.push(Piece::of(p, first, len, Part::Chunk { partial, segment }));
    }
}

fn long_units<'a>(p: &'a Placed<'a>, segment: u32, view: &UnitView, pieces: &mut Vec<Piece<'a>>) {
    for unit in 0..view.units {
        for ((first, len), k) in runs(view.len).zip(0u64..) {
            let partial = p.first_partial + (k * view.units + unit) as u32;
            let part = Part::Chunk { partial, segment: segment + unit as u32 };
            pieces.push(Piece::of(p, view.kept.at(unit) + first, len, part));
        }
    }
}

/// Columns of so many units, or chunks of them, keep a device busy with an invocation each, and neighbours read what lies
/// side by side.
const MANY_UNITS: u64 = 1 << 18;

/// Units that a row of [`UnitRow`]s takes of those with `len` elements in this chunk.
fn units_a_row(view: &UnitView, len: u32, limits: &PlanLimits) -> u64 {
    let along = view.reduced.low.stride < view.kept.low.stride;
    let many = !along && view.units * view.chunks() >= MANY_UNITS;
    let team = if limits.teams && len >= TEAM && !many { TEAM } else { 1 };
    u64::from((limits.workgroup_size / team).max(1))
}

/// Blocks of units, chunk by chunk, each within what a window can hold.
fn side_by_side<'a>(
    p: &'a Placed<'a>,
    view: &UnitView,
    limits: &PlanLimits,
    pieces: &mut Vec<Piece<'a>>,
) -> Result<(), PlanError> {
    let size = p.at.dtype.size();
    let largest = limits.max_binding.min(LARGEST_WINDOW) - limits.alignment - 4;
    for ((first, len), k) in runs(view.len).zip(0u64..) {
        let (low, high) = view.reduced.span(first, first + u64::from(len));
        let most = units_a_row(view, len, limits);
        let mut unit = 0;
        while unit < view.units {
            let mut units = most.min(view.units - unit);
            let bytes = |units: u64| {
                let (from, to) = view.kept.span(unit, unit + units);
                ((from + low) * size, (to + high + 1) * size)
            };
            // Neighbours may lie further apart than one unit's own elements.
            while units > 1 && bytes(units).1 - bytes(units).0 > largest {
                units /= 2;
            }
            let (begin, end) = bytes(units);
            if end - begin > largest {
                let (what, given) = ("bytes that 16,384 elements of a unit span", end - begin);
                return Err(PlanError::TooLarge { what, required: largest, given });
            }
            let part = Part::Units {
                first_unit: unit as u32,
                units: units as u32,
                first: first as u32,
                len,
                partial: p.first_partial + (k * view.units + unit) as u32,
            };
            pieces.push(Piece { placed: p, begin: p.at.offset + begin, end: p.at.offset + end, part });
            unit += units;
        }
    }
    Ok(())
}

fn map<'a>(p: &'a Placed<'a>, pieces: &mut Vec<Piece<'a>>) {
    pieces.extend(runs(p.at.elements).map(|(first, len)| Piece::of(p, first, len, Part::Mapped { first })));
}

/// Merges neighbouring pieces of one buffer into windows as large as a binding may be.
fn windows(pieces: &[Piece<'_>], limits: &PlanLimits) -> Vec<Filled> {
    let largest = limits.max_binding.min(LARGEST_WINDOW);
    let alignment = if limits.vectors { limits.alignment.max(VECTOR) } else { limits.alignment };
    let mut filled: Vec<Filled> = Vec::new();
    for (i, p) in pieces.iter().enumerate() {
        let (buffer, dtype) = (p.placed.at.buffer, p.placed.at.dtype);
        let vectors = limits.vectors && p.has_whole_vectors();
        let end = p.end.next_multiple_of(4);
        if let Some(last) = filled.last_mut()
            && (last.dtype, last.vectors, last.window.buffer) == (dtype, vectors, buffer)
            && end.saturating_sub(last.window.offset) <= largest
        {
            last.window.size = last.window.size.max(end - last.window.offset);
            last.pieces.end = i + 1;
            continue;
        }
        let offset = p.begin - p.begin % alignment;
        let window = Window { buffer, offset, size: end - offset };
        filled.push(Filled { window, dtype, vectors, pieces: i..i + 1 });
    }
    filled
}

/// Packs windows into dispatches: large ones alone where limits say so, each other into the first of its
/// element type that has room and no window overlapping it. A window that begins inside its neighbour's
/// last alignment goes into another dispatch.
fn pack(filled: Vec<Filled>, limits: &PlanLimits) -> Vec<Vec<Filled>> {
    let slots = limits.slots as usize;
    let mut alone: Vec<Vec<Filled>> = Vec::new();
    let mut groups: Vec<Vec<Filled>> = Vec::new();
    let mut first_open = 0;
    for f in filled {
        if f.window.size >= limits.alone_from {
            alone.push(vec![f]);
            continue;
        }
        while groups.get(first_open).is_some_and(|g| g.len() == slots) {
            first_open += 1;
        }
        let joins = |g: &Vec<Filled>| {
            g.len() < slots
                && (g[0].dtype, g[0].vectors) == (f.dtype, f.vectors)
                && g.iter().all(|o| !o.window.overlaps(&f.window))
        };
        match groups[first_open..].iter().position(joins) {
            Some(i) => groups[first_open + i].push(f),
            None => groups.push(vec![f]),
        }
    }
    alone.append(&mut groups);
    alone
}

/// The dispatches over all pieces, and their rows added to a table.
fn dispatches<'a, R>(
    mut pieces: Vec<Piece<'a>>,
    limits: &PlanLimits,
    table: &mut Vec<R>,
    mut seams: Option<&mut Seams>,
    row: impl Fn(&Piece<'a>, u32, &Window) -> R,
) -> Result<Vec<Dispatch>, PlanError> {
    let words = |p: &Piece<'_>| !(limits.vectors && p.has_whole_vectors());
    pieces.sort_by_key(|p| (p.placed.at.dtype as u32, words(p), p.placed.at.buffer, p.begin));
    let seam_count = |seams: &Option<&mut Seams>| seams.as_ref().map_or(0, |s| s.rows.len()) as u32;
    let mut dispatches = Vec::new();
    for group in pack(windows(&pieces, limits), limits) {
        let (first_row, first_seam) = (table.len() as u32, seam_count(&seams));
        let (of_group, short) = short_last(&pieces, &group, limits);
        for (slot, f, p) in of_group {
            if let (Some(seams), 2) = (&mut seams, f.dtype.size()) {
                seams.add(p, f, slot);
            }
            table.push(row(p, slot, &f.window));
        }
        let rows = first_row..table.len() as u32;
        let seam_range = first_seam..seam_count(&seams);
        dispatches.push(Dispatch {
            dtype: group[0].dtype,
            vectors: group[0].vectors,
            grid: grid(rows.len() as u64, limits)?,
            windows: group.iter().map(|f| f.window).collect(),
            short: rows.end - short..rows.end,
            rows,
            seam_grid: grid((seam_range.len() as u64).div_ceil(u64::from(limits.workgroup_size)), limits)?,
            seams: seam_range,
        });
    }
    Ok(dispatches)
}

/// The pieces of a dispatch with their slots, and how many at their end share workgroups.
fn short_last<'p, 'a>(
    pieces: &'p [Piece<'a>],
    group: &'p [Filled],
    limits: &PlanLimits,
) -> (Vec<(u32, &'p Filled, &'p Piece<'a>)>, u32) {
    let slots = (0u32..).zip(group);
    let mut all: Vec<_> =
        slots.flat_map(|(slot, f)| pieces[f.pieces.clone()].iter().map(move |p| (slot, f, p))).collect();
    let is_short = |p: &Piece<'_>| matches!(p.part, Part::Chunk { .. }) && placed_in(p, p.begin).1 <= COLUMNS;
    let short = all.iter().filter(|(_, _, p)| is_short(p)).count();
    if (short as u64) < limits.short_from {
        return (all, 0);
    }
    all.sort_by_key(|(_, _, p)| is_short(p));
    (all, short as u32)
}

/// First element and length of a piece in a window that begins at byte `offset`.
fn placed_in(p: &Piece<'_>, offset: u64) -> (u32, u32) {
    let size = p.placed.at.dtype.size();
    (((p.begin - offset) / size) as u32, ((p.end - p.begin) / size) as u32)
}

fn chunk_row(p: &Piece<'_>, slot: u32, window: &Window) -> ChunkRow {
    let (start, len) = placed_in(p, window.offset);
    let (partial, segment) = match p.part {
        Part::Chunk { partial, segment } => (partial, segment),
        _ => (0, 0),
    };
    ChunkRow { start, slot_len: (slot << LEN_BITS) | len, partial, segment }
}

fn view_of(p: &Piece<'_>) -> (u32, Option<UnitView>) {
    match p.placed.owner {
        Owner::One(segment) => (segment, None),
        Owner::Units { first, view } => (first, Some(view)),
    }
}

fn map_row(p: &Piece<'_>, slot: u32, window: &Window) -> MapRow {
    let (start, len) = placed_in(p, window.offset);
    let first = if let Part::Mapped { first } = p.part { first as u32 } else { 0 };
    let (segment, view) = view_of(p);
    let kept = view.map(|v| v.kept);
    MapRow {
        start,
        slot_len: (slot << LEN_BITS) | len,
        first,
        segment,
        low: kept.map_or(1, |k| k.low.stride.max(1) as u32),
        kept: kept.map_or(1, |k| k.low.size as u32),
        high: kept.map_or(1, |k| k.high.stride.max(1) as u32),
        outer: kept.map_or(1, |k| k.high.size as u32),
    }
}

fn unit_row(p: &Piece<'_>, slot: u32, window: &Window) -> UnitRow {
    let size = p.placed.at.dtype.size() as i64;
    // Before the window where the block's first element is not the tensor's.
    let base = (p.placed.at.offset as i64 - window.offset as i64) / size;
    let (segment, view) = view_of(p);
    let (Part::Units { first_unit, units, first, len, partial }, Some(view)) = (p.part, view) else {
        return bytemuck::Zeroable::zeroed();
    };
    UnitRow {
        base: base as u32,
        slot,
        first_unit,
        units,
        first,
        len,
        partial,
        segment: segment + first_unit,
        kept: view.kept.low.size.max(1) as u32,
        kept_high: view.kept.high.stride as u32,
        kept_low: view.kept.low.stride as u32,
        reduced: view.reduced.low.size.max(1) as u32,
        reduced_high: view.reduced.high.stride as u32,
        reduced_low: view.reduced.low.stride as u32,
    }
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
    fn add(&mut self, p: &Piece<'_>, filled: &Filled, slot: u32) {
        let (start, len) = placed_in(p, filled.window.offset);
        let segment = |i: u32| match (p.part, view_of(p)) {
            (Part::Mapped { first }, (segment, Some(view))) => {
                segment + view.unit_of(first + u64::from(i)) as u32
            }
            (_, (segment, _)) => segment,
        };
        if start % 2 == 1 {
            self.row(p, filled, slot, start / 2).high = segment(0);
        }
        let end = start + len;
        if end % 2 == 1 {
            self.row(p, filled, slot, end / 2).low = segment(len - 1);
        }
    }

    fn row(&mut self, p: &Piece<'_>, filled: &Filled, slot: u32, word: u32) -> &mut SeamRow {
        let key = (p.placed.at.dtype, p.placed.at.buffer, filled.window.offset + u64::from(word) * 4);
        let row = *self.met.entry(key).or_insert_with(|| {
            self.rows.push(SeamRow { slot, word, low: NONE, high: NONE });
            self.rows.len() - 1
        });
        &mut self.rows[row]
    }
}
