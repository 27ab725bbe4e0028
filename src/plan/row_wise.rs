//! Steps on rows of tables: which rows a gradient has is known on the device alone.
//!
//! Every chunk of such a gradient may hold rows from anywhere in its table. Where a binding does not hold the table, each part of it
//! takes a dispatch over all chunks, which passes over rows of other parts.

use crate::error::PlanError;
use crate::layout::{CHUNK, TablePart};
use crate::segments::Segments;

use super::dispatch::{Dispatch, LARGEST_WINDOW, grid};
use super::fused::{Filled, FusedPlan, Piece, Span, alone};
use super::limits::{FUSED_STORAGE, PlanLimits};
use super::operands::{Operands, RowWise};
use super::pack::runs;

impl FusedPlan {
    /// Adds dispatches for the tensors whose rows are some of a table.
    pub(super) fn add_row_wise(
        &mut self,
        tensors: &[Operands],
        parts: &Segments,
        limits: &PlanLimits,
    ) -> Result<(), PlanError> {
        for (tensor, operands) in tensors.iter().enumerate() {
            let Some([rows, width]) = operands.table else { continue };
            let chunks: Vec<(u64, u32)> = runs(operands.gradient.elements).collect();
            let a_window = most_elements(operands.gradient.dtype.size(), limits) / u64::from(CHUNK);
            for chunks in chunks.chunks(a_window.max(1) as usize) {
                for (first, len) in parts_of(rows * width, limits) {
                    let part = TablePart { first: first as u32, len: len as u32, width: width as u32 };
                    let own = self.row_wise(operands, (tensor, chunks, part), parts, limits)?;
                    self.row_wise.push(own);
                }
            }
        }
        Ok(())
    }

    fn row_wise(
        &mut self,
        operands: &Operands,
        (tensor, chunks, part): (usize, &[(u64, u32)], TablePart),
        parts: &Segments,
        limits: &PlanLimits,
    ) -> Result<RowWise, PlanError> {
        let first = chunks.first().map_or(0, |(first, _)| *first);
        let end = chunks.last().map_or(0, |(first, len)| first + u64::from(*len));
        let bound = Piece::row_wise(operands, tensor, first..end, part);
        let (pattern, windows) = alone(&bound, false, limits);
        // The list of rows takes one more.
        let (limit, tables) = ("max_storage_buffers_per_shader_stage", u64::from(FUSED_STORAGE) + 1);
        let given = u64::from(limits.bindings) + tables - 1;
        let required = windows.len() as u64 + tables;
        if required > given {
            return Err(PlanError::Limit { limit, required, given });
        }
        let required = limits.max_binding.min(LARGEST_WINDOW);
        if let Some(given) = windows.iter().map(|w| w.size).find(|&size| size > required) {
            let what = "bytes that a table spans with what is updated with it in one buffer";
            return Err(PlanError::TooLarge { what, required, given });
        }
        let pattern = pattern.by_rows();
        let filled = Filled { dtype: operands.gradient.dtype, pattern, windows, pieces: 0..0 };
        let rows = self.rows.len() as u32;
        self.rows.extend(chunks.iter().map(|&(first, len)| {
            let piece = Piece::row_wise(operands, tensor, first..first + u64::from(len), part);
            piece.row(0, &filled, parts)
        }));
        let rows = rows..self.rows.len() as u32;
        let dispatch = Dispatch {
            vectors: false,
            dtype: filled.dtype,
            windows: filled.windows,
            grid: grid(rows.len() as u64, limits)?,
            short: rows.end..rows.end,
            rows,
            seams: 0..0,
            seam_grid: [0, 0],
        };
        Ok(RowWise { dispatch, pattern, tensor, part })
    }
}

/// Elements that a window holds wherever they begin.
fn most_elements(size: u64, limits: &PlanLimits) -> u64 {
    (limits.max_binding.min(LARGEST_WINDOW) - limits.alignment - 4) / size
}

/// Parts of about one size that windows hold: first element and length.
fn parts_of(elements: u64, limits: &PlanLimits) -> impl Iterator<Item = (u64, u64)> {
    let each = elements.div_ceil(elements.div_ceil(most_elements(4, limits)).max(1)).max(1);
    (0..elements).step_by(each as usize).map(move |first| (first, each.min(elements - first)))
}

impl Piece<'_> {
    /// Elements of a gradient with a part of the table.
    fn row_wise(
        operands: &Operands,
        tensor: usize,
        elements: std::ops::Range<u64>,
        part: TablePart,
    ) -> Piece<'_> {
        let gradient = &operands.gradient;
        let size = gradient.dtype.size();
        let at = |n: u64| gradient.offset + n * size;
        let own = Span { buffer: gradient.buffer, begin: at(elements.start), end: at(elements.end) };
        let of_table = operands.updated.iter().map(|at| {
            let begin = at.offset + u64::from(part.first) * 4;
            Span { buffer: at.buffer, begin, end: begin + u64::from(part.len) * 4 }
        });
        let spans = std::iter::once(own).chain(of_table).collect();
        let len = (elements.end - elements.start) as u32;
        Piece { operands, tensor, first: elements.start, len, spans }
    }
}
