//! Gradients with the tensors updated with them (operands): parameter and optimiser state, or an accumulator.
//!
//! A slot holds a window of each. Where these lie so close in one buffer that their aligned windows
//! would overlap, they share one.

use crate::error::{PlanError, PrepareError};
use crate::layout::{CHUNK, FusedRow, FusedTensor, LEN_BITS, NONE};
use crate::segments::{Owner, Segments};
use crate::tensor::{DType, Precision};

use super::dispatch::{Dispatch, LARGEST_WINDOW, Window, grid};
use super::limits::{FUSED_STORAGE, PlanLimits};
use super::operands::{MOST_OPERANDS, Operands, Pattern, RowWise, check_ranges, check_tensors};
use super::pack::runs;
use super::placement::Placement;

/// Dispatches over gradients and the tensors updated with them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FusedPlan {
    /// The dispatches, with the pattern of each; their windows are listed slot by slot.
    pub dispatches: Vec<(Dispatch, Pattern)>,
    /// Chunks, in the order of these dispatches.
    pub rows: Vec<FusedRow>,
    /// One a tensor.
    pub tensors: Vec<FusedTensor>,
    /// Dispatches over rows of tables.
    pub row_wise: Vec<RowWise>,
}

/// A chunk, with a range of bytes for each operand.
pub(super) struct Piece<'a> {
    pub(super) operands: &'a Operands,
    pub(super) tensor: usize,
    pub(super) first: u64,
    pub(super) len: u32,
    pub(super) spans: Vec<Span>,
}

#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) buffer: usize,
    pub(super) begin: u64,
    pub(super) end: u64,
}

/// One slot's windows, and the pieces in them.
pub(super) struct Filled {
    pub(super) dtype: DType,
    pub(super) pattern: Pattern,
    pub(super) windows: Vec<Window>,
    pub(super) pieces: std::ops::Range<usize>,
}

impl Filled {
    /// The window in which an operand lies.
    pub(super) fn window(&self, operand: usize) -> &Window {
        &self.windows[usize::from(self.pattern.binding[operand])]
    }
}

/// One dispatch over slots and their rows.
pub(super) fn over(
    group: &[Filled],
    rows: std::ops::Range<u32>,
    limits: &PlanLimits,
) -> Result<(Dispatch, Pattern), PlanError> {
    let dispatch = Dispatch {
        vectors: false,
        dtype: group[0].dtype,
        windows: group.iter().flat_map(|f| f.windows.iter().copied()).collect(),
        grid: grid((rows.end - rows.start).into(), limits)?,
        short: rows.end..rows.end,
        rows,
        seams: 0..0,
        seam_grid: [0, 0],
    };
    Ok((dispatch, group[0].pattern))
}

impl FusedPlan {
    /// Plans work on tensors and their operands, in the order of the tensors of `parts`.
    pub(crate) fn new(
        tensors: &[Operands],
        parts: &Segments,
        limits: &PlanLimits,
    ) -> Result<FusedPlan, PrepareError> {
        check_tensors(tensors, parts, limits)?;
        check_ranges(tensors)?;
        let split = |t: &Operands| t.begins_in_a_word();
        let whole = tensors.iter().enumerate().filter(|(_, t)| t.table.is_none());
        let all: Vec<Piece<'_>> = whole.flat_map(|(tensor, t)| pieces(t, tensor, split(t))).collect();
        let mut pairs = 0u64;
        let mut fused = FusedPlan {
            tensors: tensors.iter().zip(&parts.owners).map(|of| row_of(of, &mut pairs)).collect(),
            ..FusedPlan::default()
        };
        // Words that two tensors share are written by two dispatches, one after the other.
        let (upper, pieces): (Vec<_>, Vec<_>) = all.into_iter().partition(Piece::is_upper_half);
        for pieces in [pieces, upper] {
            fused.add(pieces, parts, limits)?;
        }
        Ok(fused)
    }

    /// The same tensors where they are only read: every chunk of those whose update is limited, as the CPU path cuts them.
    pub(crate) fn measuring(
        &self,
        tensors: &[Operands],
        parts: &Segments,
        limits: &PlanLimits,
    ) -> Result<FusedPlan, PlanError> {
        let limited = tensors.iter().enumerate().filter(|(_, t)| t.limited);
        let mut fused = FusedPlan { tensors: self.tensors.clone(), ..FusedPlan::default() };
        fused.add(limited.flat_map(|(tensor, t)| pieces(t, tensor, false)).collect(), parts, limits)?;
        Ok(fused)
    }

    /// Adds dispatches over these chunks.
    fn add(
        &mut self,
        mut pieces: Vec<Piece<'_>>,
        parts: &Segments,
        limits: &PlanLimits,
    ) -> Result<(), PlanError> {
        pieces.sort_by_key(|p| {
            let Operands { gradient, precision, .. } = p.operands;
            let half = precision.half().map(|dtype| (dtype as u32, *precision == Precision::Stochastic));
            (gradient.dtype as u32, half, p.spans[0].buffer, p.spans[0].begin)
        });
        let together = all_in_one_binding(&pieces, limits);
        for group in packed(slots(&pieces, together, limits)?, limits) {
            self.dispatch(&group, &pieces, parts, limits)?;
        }
        Ok(())
    }

    fn dispatch(
        &mut self,
        group: &[Filled],
        pieces: &[Piece<'_>],
        parts: &Segments,
        limits: &PlanLimits,
    ) -> Result<(), PlanError> {
        let first = self.rows.len() as u32;
        for (slot, filled) in (0u32..).zip(group) {
            let rows = pieces[filled.pieces.clone()].iter().map(|p| p.row(slot, filled, parts));
            self.rows.extend(rows);
        }
        self.dispatches.push(over(group, first..self.rows.len() as u32, limits)?);
        Ok(())
    }
}

/// `pairs` counts those of the tensors before it.
fn row_of((t, owner): (&Operands, &Owner), pairs: &mut u64) -> FusedTensor {
    let elements = t.gradient.elements;
    let pair = if t.limited { *pairs as u32 } else { NONE };
    *pairs += if t.limited { elements.div_ceil(CHUNK.into()) } else { 0 };
    let kept = match owner {
        Owner::One(_) => None,
        Owner::Units { view, .. } => Some(view.kept),
    };
    FusedTensor {
        lr_scale: t.lr_scale,
        weight_decay: t.weight_decay,
        ratio: 1.0,
        pair,
        elements: elements.min(u32::MAX.into()) as u32,
        seed: [t.seed as u32, (t.seed >> 32) as u32],
        low: kept.map_or(1, |k| k.low.stride.max(1) as u32),
        kept: kept.map_or(1, |k| k.low.size as u32),
        high: kept.map_or(1, |k| k.high.stride.max(1) as u32),
        outer: kept.map_or(1, |k| k.high.size as u32),
    }
}

/// Where one is `split`, its first element is a piece by itself: that in the upper half of a word, so that others hold whole words but for
/// a last half.
fn pieces(operands: &Operands, tensor: usize, split: bool) -> impl Iterator<Item = Piece<'_>> {
    let elements = operands.gradient.elements;
    let upper = u64::from(split).min(elements);
    let rest = runs(elements - upper).map(move |(first, len)| (first + upper, len));
    runs(upper).chain(rest).map(move |(first, len)| {
        let span = |at: &Placement| {
            let size = at.dtype.size();
            let begin = at.offset + first * size;
            Span { buffer: at.buffer, begin, end: begin + u64::from(len) * size }
        };
        let spans = std::iter::once(&operands.gradient).chain(&operands.updated).map(span).collect();
        Piece { operands, tensor, first, len, spans }
    })
}

impl Piece<'_> {
    /// Where the operand of 16 bits that is updated lies, if there is one.
    fn half_operand(&self) -> Option<usize> {
        self.operands.precision.half_operand(self.spans.len())
    }

    fn is_upper_half(&self) -> bool {
        self.half_operand().is_some_and(|operand| !self.spans[operand].begin.is_multiple_of(4))
    }

    pub(super) fn row(&self, slot: u32, filled: &Filled, parts: &Segments) -> FusedRow {
        let half = self.half_operand();
        let at = |operand: usize| {
            let Some(span) = self.spans.get(operand) else { return 0 };
            let window = filled.window(operand);
            let size = match operand {
                0 => self.operands.gradient.dtype.size(),
                _ if half == Some(operand) => 2,
                _ => 4,
            };
            ((span.begin - window.offset) / size) as u32
        };
        FusedRow {
            start: at(0),
            slot_len: (slot << LEN_BITS) | self.len,
            first: self.first as u32,
            segment: parts.owners[self.tensor].first(),
            parameter: at(1),
            moment: at(2),
            second_moment: at(3),
            largest_moment: at(4),
            half: half.map_or(0, at),
            tensor: self.tensor as u32,
        }
    }
}

fn window_of(span: &Span, limits: &PlanLimits) -> Window {
    let offset = span.begin - span.begin % limits.alignment;
    Window { buffer: span.buffer, offset, size: span.end.next_multiple_of(4) - offset }
}

fn union(a: &Window, b: &Window) -> Window {
    let offset = a.offset.min(b.offset);
    let end = (a.offset + a.size).max(b.offset + b.size);
    Window { buffer: a.buffer, offset, size: end - offset }
}

/// Whether one window holds everything there is: tensors may then lie in any order.
pub(super) fn all_in_one_binding(pieces: &[Piece<'_>], limits: &PlanLimits) -> bool {
    let mut spans = pieces.iter().flat_map(|p| &p.spans);
    let Some(first) = spans.next() else { return false };
    let first = window_of(first, limits);
    let all =
        spans.try_fold(first, |all, s| (s.buffer == all.buffer).then(|| union(&all, &window_of(s, limits))));
    all.is_some_and(|all| all.size <= limits.max_binding.min(LARGEST_WINDOW))
}

/// The windows of one piece by itself.
pub(super) fn alone(piece: &Piece<'_>, together: bool, limits: &PlanLimits) -> (Pattern, Vec<Window>) {
    let mut windows: Vec<Window> = Vec::new();
    let mut binding = [0u8; MOST_OPERANDS];
    for span in &piece.spans {
        windows.push(window_of(span, limits));
    }
    let mut of: Vec<usize> = (0..windows.len()).collect();
    // Until none overlap: a union may overlap another window.
    while let Some((a, b)) = overlapping(&windows, together) {
        windows[a] = union(&windows[a], &windows[b]);
        windows.remove(b);
        of.iter_mut().for_each(|w| *w = if *w == b { a } else { *w - usize::from(*w > b) });
    }
    of.iter().zip(&mut binding).for_each(|(&w, b)| *b = w as u8);
    let precision = piece.operands.precision;
    let pattern = Pattern {
        binding,
        operands: of.len() as u8,
        bindings: windows.len() as u8,
        precision,
        by_rows: false,
    };
    (pattern, windows)
}

/// Two windows that have to be one, the earlier first.
fn overlapping(windows: &[Window], together: bool) -> Option<(usize, usize)> {
    let pairs = (0..windows.len()).flat_map(|b| (0..b).map(move |a| (a, b)));
    pairs.into_iter().find(|&(a, b)| together || windows[a].overlaps(&windows[b]))
}

/// Merges neighbouring pieces into slots whose windows are as large as bindings may be.
pub(super) fn slots(
    pieces: &[Piece<'_>],
    together: bool,
    limits: &PlanLimits,
) -> Result<Vec<Filled>, PlanError> {
    let mut filled: Vec<Filled> = Vec::new();
    for (i, piece) in pieces.iter().enumerate() {
        let dtype = piece.operands.gradient.dtype;
        let (pattern, windows) = alone(piece, together, limits);
        if let Some(last) = filled.last_mut()
            && (last.dtype, last.pattern) == (dtype, pattern)
            && let Some(merged) = merged(&last.windows, &windows, limits)
        {
            last.windows = merged;
            last.pieces.end = i + 1;
            continue;
        }
        if windows.len() > limits.bindings as usize {
            let (limit, tables) = ("max_storage_buffers_per_shader_stage", u64::from(FUSED_STORAGE));
            let (required, given) = (windows.len() as u64 + tables, u64::from(limits.bindings) + tables);
            return Err(PlanError::Limit { limit, required, given });
        }
        filled.push(Filled { dtype, pattern, windows, pieces: i..i + 1 });
    }
    Ok(filled)
}

/// The windows that hold both, where a binding can and none overlap.
fn merged(a: &[Window], b: &[Window], limits: &PlanLimits) -> Option<Vec<Window>> {
    let largest = limits.max_binding.min(LARGEST_WINDOW);
    let both: Vec<Window> = a.iter().zip(b).map(|(a, b)| union(a, b)).collect();
    let fits = a.iter().zip(b).all(|(a, b)| a.buffer == b.buffer) && both.iter().all(|w| w.size <= largest);
    (fits && overlapping(&both, false).is_none()).then_some(both)
}

/// Slots into dispatches, each into the first that has room and no window overlapping its own.
pub(super) fn packed(filled: Vec<Filled>, limits: &PlanLimits) -> Vec<Vec<Filled>> {
    let mut groups: Vec<Vec<Filled>> = Vec::new();
    let mut first_open = 0;
    let room = |g: &Vec<Filled>| {
        let most = (limits.bindings as usize / g[0].windows.len().max(1)).min(limits.slots as usize);
        g.len() < most.max(1)
    };
    for f in filled {
        while groups.get(first_open).is_some_and(|g| !room(g)) {
            first_open += 1;
        }
        let apart = |o: &Filled| o.windows.iter().all(|a| f.windows.iter().all(|b| !a.overlaps(b)));
        let joins = |g: &Vec<Filled>| {
            room(g) && (g[0].dtype, g[0].pattern) == (f.dtype, f.pattern) && g.iter().all(apart)
        };
        match groups[first_open..].iter().position(joins) {
            Some(i) => groups[first_open + i].push(f),
            None => groups.push(vec![f]),
        }
    }
    groups
}

const _: () = assert!(CHUNK < 1 << LEN_BITS);
