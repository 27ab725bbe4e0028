//! What kernels over gradients work on: a gradient with the tensors updated with it.

use crate::error::PlanError;
use crate::layout::{CHUNK, FusedRow, TablePart};
use crate::segments::Segments;
use crate::tensor::Precision;

use super::check::{self, BoundRange};
use super::dispatch::{Dispatch, LARGEST_WINDOW};
use super::limits::PlanLimits;
use super::placement::Placement;

/// Most operands of a kernel: gradient, parameter, three moments, and the parameter in 16 bits.
pub const MOST_OPERANDS: usize = 6;

/// Which of a slot's bindings the gradient and each tensor updated with it lie in, and how the parameter is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Pattern {
    pub(super) binding: [u8; MOST_OPERANDS],
    pub(super) operands: u8,
    pub(super) bindings: u8,
    pub(super) precision: Precision,
    /// Whether a list names the rows of a table that are updated.
    pub(super) by_rows: bool,
}

impl Pattern {
    /// Each of `operands` tensors of 4 bytes an element in a binding of its own.
    pub fn apart(operands: usize) -> Pattern {
        let operands = operands.min(MOST_OPERANDS) as u8;
        Pattern { binding: [0, 1, 2, 3, 4, 5], operands, bindings: operands, ..Pattern::default() }
    }

    /// All there are of `operands` tensors: each lies in the binding of an earlier one or in the next new one.
    pub(crate) fn every(operands: usize) -> Vec<Pattern> {
        let mut all = vec![Pattern::apart(0)];
        for operand in 0..operands.min(MOST_OPERANDS) {
            let longer = |p: &Pattern, b: u8| {
                let mut binding = p.binding;
                binding[operand] = b;
                Pattern { binding, operands: operand as u8 + 1, bindings: p.bindings.max(b + 1), ..*p }
            };
            all = all.iter().flat_map(|p| (0..=p.bindings).map(|b| longer(p, b))).collect();
        }
        all
    }

    /// The same for parameters kept otherwise: one more operand where the precision is mixed, in a binding of its own.
    pub(crate) fn keeping(self, precision: Precision) -> Pattern {
        let Precision::Mixed(_) = precision else { return Pattern { precision, ..self } };
        let Pattern { mut binding, operands, bindings, .. } = self;
        binding[usize::from(operands).min(MOST_OPERANDS - 1)] = bindings;
        Pattern { binding, operands: operands + 1, bindings: bindings + 1, precision, ..self }
    }

    /// The same for the rows of a table that a list names.
    pub(crate) fn by_rows(self) -> Pattern {
        Pattern { by_rows: true, ..self }
    }

    /// Whether a list names the rows of a table that are updated.
    pub fn is_by_rows(&self) -> bool {
        self.by_rows
    }

    /// How the parameter is kept.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Number of operands.
    pub fn operands(&self) -> usize {
        self.operands.into()
    }

    /// Number of bindings of a slot.
    pub fn bindings(&self) -> usize {
        self.bindings.into()
    }

    /// The binding of each.
    pub fn binding_of(&self) -> impl Iterator<Item = usize> + '_ {
        self.binding[..self.operands()].iter().map(|&b| usize::from(b))
    }
}

/// A dispatch over rows of a gradient and a part of their table.
#[derive(Clone, Debug, PartialEq)]
pub struct RowWise {
    /// The windows: one of the gradient, one of each tensor updated with it.
    pub dispatch: Dispatch,
    /// Which operand lies in which.
    pub pattern: Pattern,
    /// Index of the tensor.
    pub tensor: usize,
    /// The part of the table.
    pub part: TablePart,
}

/// A gradient with the tensors updated with it.
#[derive(Clone, Debug, Default)]
pub struct Operands {
    /// The gradient.
    pub gradient: Placement,
    /// Rows and width of the table, where the gradient's rows are some of one that the device lists.
    pub table: Option<[u64; 2]>,
    /// Tensors of as many elements, or as the table has: the parameter, up to three moments of `f32`, and where the precision is mixed, the
    /// parameter in 16 bits.
    pub updated: Vec<Placement>,
    /// How the parameter is kept.
    pub precision: Precision,
    /// Key of what rounds by chance.
    pub seed: u64,
    /// Factor of the learning rate.
    pub lr_scale: f32,
    /// Weight decay.
    pub weight_decay: f32,
    /// Whether the optimiser's limit of updates holds for it.
    pub limited: bool,
}

impl Operands {
    /// Whether the parameter in 16 bits begins in the upper half of a word, the lower half of which is another tensor's.
    pub(super) fn begins_in_a_word(&self) -> bool {
        let half = self.precision.half_operand(self.updated.len() + 1);
        half.is_some_and(|operand| !self.updated[operand - 1].offset.is_multiple_of(4))
    }
}

/// That ranges lie within their buffers, and none overlaps another.
pub(crate) fn check_ranges(tensors: &[Operands]) -> Result<(), PlanError> {
    let bound = |at| BoundRange { at, may_share: false };
    let all: Vec<BoundRange<'_>> =
        tensors.iter().flat_map(|t| std::iter::once(&t.gradient).chain(&t.updated).map(bound)).collect();
    check::ranges(&all)
}

/// That there is one for each tensor of the plan, with as many elements to update.
pub(super) fn check_tensors(
    tensors: &[Operands],
    parts: &Segments,
    limits: &PlanLimits,
) -> Result<(), PlanError> {
    let (required, given) = (parts.owners.len() as u64, tensors.len() as u64);
    if required != given {
        return Err(PlanError::Operands { tensor: "all".into(), what: "tensors", required, given });
    }
    let singles = |t: &Operands| t.updated.len() - usize::from(matches!(t.precision, Precision::Mixed(_)));
    let updated = tensors.first().map_or(0, singles);
    for t in tensors {
        let wrong = |what, required, given| {
            Err(PlanError::Operands { tensor: t.gradient.name.clone(), what, required, given })
        };
        if singles(t) != updated || t.updated.len() >= MOST_OPERANDS {
            let required = updated.min(MOST_OPERANDS - 1) as u64;
            return wrong("tensors to update", required, singles(t) as u64);
        }
        check::dtypes(std::slice::from_ref(&t.gradient))?;
        let half = t.precision.half_operand(t.updated.len() + 1);
        for (operand, at) in (1..).zip(&t.updated) {
            let elements = t.table.map_or(t.gradient.elements, |[rows, width]| rows * width);
            if at.elements != elements {
                return wrong("elements to update", elements, at.elements);
            }
            let size = if half == Some(operand) { 2 } else { 4 };
            if at.dtype.size() != size {
                return wrong("bytes of an element to update", size, at.dtype.size());
            }
        }
    }
    let rows = |t: &Operands| {
        u128::from(t.gradient.elements.div_ceil(CHUNK.into()) + u64::from(t.begins_in_a_word()))
    };
    let chunks = tensors.iter().map(rows).sum::<u128>();
    let required = limits.max_binding.min(LARGEST_WINDOW) / size_of::<FusedRow>() as u64;
    if chunks > u128::from(required) {
        let given = u64::try_from(chunks).unwrap_or(u64::MAX);
        return Err(PlanError::TooLarge { what: "chunks of 16,384 elements", required, given });
    }
    Ok(())
}
