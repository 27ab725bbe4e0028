//! Sums over examples: gradients of shape `[examples, ...]` with sums of 64 bits an element, and these with what is released.

use crate::error::{PlanError, PrepareError};
use crate::layout::{CHUNK, ExampleRow, LEN_BITS};
use crate::segments::Segments;

use super::check;
use super::dispatch::{Dispatch, LARGEST_WINDOW};
use super::fused::{Filled, Piece, Span, all_in_one_binding, over, packed, slots};
use super::limits::PlanLimits;
use super::operands::{Operands, Pattern, check_ranges};
use super::placement::Placement;

/// Elements that a workgroup takes of an example of so many, each through all examples: few, since they are all that runs side by side, and of
/// large ones more, for whose rows a table would become large.
fn columns(stride: u64) -> u64 {
    (stride / 4096).next_multiple_of(256).clamp(256, CHUNK.into())
}

/// Where a gradient lies, its sums, two words of 4 bytes each, and what is released of them.
#[derive(Clone, Debug)]
pub(crate) struct Examples {
    pub(crate) gradient: Placement,
    pub(crate) sums: Placement,
    pub(crate) released: Placement,
}

/// Dispatches over examples and over their sums, with the pattern of each.
#[derive(Clone, Debug, Default)]
pub(crate) struct ExamplesPlan {
    /// What begins the sums of a batch.
    pub(crate) begin: Vec<(Dispatch, Pattern)>,
    /// The rest of its examples, where a binding does not hold them all.
    pub(crate) rest: Vec<(Dispatch, Pattern)>,
    pub(crate) release: Vec<(Dispatch, Pattern)>,
    pub(crate) rows: Vec<ExampleRow>,
}

/// Gradients that go to sums, or sums that go to what is released, tensor by tensor.
struct Set {
    tensors: Vec<Operands>,
    /// Elements of an example.
    strides: Vec<u64>,
    /// Examples that one dispatch takes of each tensor, 0 where sums are the first operand.
    taken: Vec<u64>,
}

impl ExamplesPlan {
    /// Plans sums of tensors in the order of those of `parts`, whose rows are the examples.
    pub(crate) fn new(
        tensors: &[Examples],
        parts: &Segments,
        limits: &PlanLimits,
    ) -> Result<ExamplesPlan, PrepareError> {
        let (segment, examples) = parts.rows();
        let pair = |first: &Placement, second: &Placement| Operands {
            gradient: first.clone(),
            updated: vec![second.clone()],
            ..Operands::default()
        };
        let all: Vec<Operands> = tensors
            .iter()
            .map(|t| Operands {
                updated: vec![t.sums.clone(), t.released.clone()],
                ..pair(&t.gradient, &t.sums)
            })
            .collect();
        tensors.iter().try_for_each(|t| check::dtypes(std::slice::from_ref(&t.gradient)))?;
        check_ranges(&all)?;
        let adding: Vec<Operands> = tensors.iter().map(|t| pair(&t.gradient, &t.sums)).collect();
        let releasing: Vec<Operands> = tensors.iter().map(|t| pair(&t.sums, &t.released)).collect();
        let strides: Vec<u64> = tensors.iter().map(|t| t.released.elements).collect();
        let taken = adding.iter().zip(&strides).map(|(t, &stride)| at_once(t, stride, limits)).collect();
        let adding = Set { tensors: adding, strides: strides.clone(), taken };
        let releasing = Set { taken: vec![0; strides.len()], tensors: releasing, strides };
        check_rows(&adding, examples.into(), limits)?;
        let mut plan = ExamplesPlan::default();
        plan.begin = plan.dispatches(&adding, 0, (segment, examples), limits)?;
        let turns = adding.taken.iter().map(|&taken| u64::from(examples).div_ceil(taken)).max().unwrap_or(0);
        for turn in 1..turns {
            let more = plan.dispatches(&adding, turn, (segment, examples), limits)?;
            plan.rest.extend(more);
        }
        plan.release = plan.dispatches(&releasing, 0, (segment, examples), limits)?;
        Ok(plan)
    }

    /// Those of one turn: sums are written by one dispatch after the other.
    fn dispatches(
        &mut self,
        set: &Set,
        turn: u64,
        examples: (u32, u32),
        limits: &PlanLimits,
    ) -> Result<Vec<(Dispatch, Pattern)>, PlanError> {
        let mut pieces: Vec<Piece<'_>> =
            (0..set.tensors.len()).flat_map(|tensor| set.pieces(tensor, turn, examples.1.into())).collect();
        pieces.sort_by_key(|p| (p.operands.gradient.dtype as u32, p.spans[0].buffer, p.spans[0].begin));
        let together = all_in_one_binding(&pieces, limits);
        let mut dispatches = Vec::new();
        for group in packed(slots(&pieces, together, limits)?, limits) {
            let first = self.rows.len() as u32;
            for (slot, filled) in (0u32..).zip(&group) {
                let own = &pieces[filled.pieces.clone()];
                self.rows.extend(own.iter().map(|p| set.row(p, slot, filled, turn, examples)));
            }
            dispatches.push(over(&group, first..self.rows.len() as u32, limits)?);
        }
        Ok(dispatches)
    }
}

/// Examples of a tensor that lie in one binding, wherever it begins: 1 at least, of which a piece takes what it needs.
fn at_once(t: &Operands, stride: u64, limits: &PlanLimits) -> u64 {
    let largest = limits.max_binding.min(LARGEST_WINDOW) - limits.alignment - 4;
    largest.checked_div(stride * t.gradient.dtype.size()).unwrap_or(u64::MAX).max(1)
}

impl Set {
    fn examples_of(&self, tensor: usize, turn: u64, examples: u64) -> std::ops::Range<u64> {
        match self.taken[tensor] {
            0 => 0..1,
            taken => {
                (turn.saturating_mul(taken)).min(examples)..(turn + 1).saturating_mul(taken).min(examples)
            }
        }
    }

    fn pieces(&self, tensor: usize, turn: u64, examples: u64) -> impl Iterator<Item = Piece<'_>> {
        let (operands, stride) = (&self.tensors[tensor], self.strides[tensor]);
        let own = self.examples_of(tensor, turn, examples);
        let elements = if own.is_empty() { 0 } else { stride };
        let columns = columns(stride);
        (0..elements).step_by(columns as usize).map(move |first| {
            let end = (first + columns).min(stride);
            let span = |at: &Placement, begin: u64, end: u64, size: u64| Span {
                buffer: at.buffer,
                begin: at.offset + begin * size,
                end: at.offset + end * size,
            };
            let (from, to) = (&operands.gradient, &operands.updated[0]);
            let spans = match self.taken[tensor] {
                0 => vec![span(from, first, end, 8), span(to, first, end, 4)],
                _ => {
                    let last = (own.end - 1) * stride + end;
                    vec![
                        span(from, own.start * stride + first, last, from.dtype.size()),
                        span(to, first, end, 8),
                    ]
                }
            };
            Piece { operands, tensor, first, len: (end - first) as u32, spans }
        })
    }

    fn row(
        &self,
        p: &Piece<'_>,
        slot: u32,
        filled: &Filled,
        turn: u64,
        (segment, examples): (u32, u32),
    ) -> ExampleRow {
        let at = |operand: usize, size: u64| {
            ((p.spans[operand].begin - filled.window(operand).offset) / size) as u32
        };
        let own = self.examples_of(p.tensor, turn, examples.into());
        ExampleRow {
            start: at(0, p.operands.gradient.dtype.size()),
            slot_len: (slot << LEN_BITS) | p.len,
            first: p.first as u32,
            segment: segment + own.start as u32,
            to: at(1, 4),
            stride: self.strides[p.tensor] as u32,
            examples: (own.end - own.start) as u32,
            tensor: p.tensor as u32,
        }
    }
}

/// That the table of rows can be bound.
fn check_rows(adding: &Set, examples: u64, limits: &PlanLimits) -> Result<(), PlanError> {
    let rows = |(stride, taken): (&u64, &u64)| {
        // Of every turn, and of the release.
        u128::from(stride.div_ceil(columns(*stride))) * u128::from(examples.div_ceil(*taken) + 1)
    };
    let given: u128 = adding.strides.iter().zip(&adding.taken).map(rows).sum();
    let required = limits.max_binding.min(LARGEST_WINDOW) / size_of::<ExampleRow>() as u64;
    if given > u128::from(required) {
        let given = u64::try_from(given).unwrap_or(u64::MAX);
        return Err(PlanError::TooLarge { what: "runs of elements of examples", required, given });
    }
    Ok(())
}
