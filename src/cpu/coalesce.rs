//! Duplicates of a sparse gradient, added: the twin of [`Coalescer`](crate::Coalescer) and of the `shaders/coalesce_*.wgsl`.

mod sum;

use crate::error::ClipError;
use crate::tensor::DType;

use super::block::{Values, not_here, with_elements};
use super::element::Element;
use super::grads::Slice;
use super::threads;

use sum::sum;

/// A sparse gradient without duplicates: rows of a table, each with its sum.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Coalesced {
    /// The rows that entries name, ascending.
    pub rows: Vec<u32>,
    /// The sums, row by row: [rows named, width], row-major. A gradient as any other.
    pub values: Vec<f32>,
}

/// Adds the entries that have one index: PyTorch's `coalesce`. `indices` holds a row of `table`, of the shape [rows, width], for each
/// entry, `values` the `width` elements of one entry after the other.
///
/// Sums do not depend on the order of entries: see [`Coalescer`](crate::Coalescer), whose bits they have. There are as many rows
/// as are named, without the zeros that follow them there.
///
/// ```
/// use gradclip::{Clip, cpu::{self, GradMut}};
///
/// // Of a table of 10 rows of 2, row 7 twice.
/// let values = [3.0f32, 0.0, 1.0, 1.0, 0.0, 4.0];
/// let mut embedding = cpu::coalesce("wte", &[7, 2, 7], &values[..], [10, 2])?;
/// assert_eq!((&embedding.rows[..], &embedding.values[..]), (&[2, 7][..], &[1.0, 1.0, 3.0, 4.0][..]));
///
/// let mut bias = [3.0f32];
/// let mut grads = [GradMut::new("wte", &mut embedding.values), GradMut::new("bias", &mut bias)];
/// let report = cpu::clip(&mut grads, &Clip::global_norm(1.0))?;
/// assert_eq!(report.norm(), Some(6.0)); // 1 + 1 + 9 + 16 + 9
/// # Ok::<(), gradclip::ClipError>(())
/// ```
///
/// # Errors
///
/// [`ClipError::Tensor`] for values that are not as many as entries have, values of `f64`, or an index that is no row of the table.
pub fn coalesce<'a>(
    name: &str,
    indices: &[u32],
    values: impl Into<Slice<'a>>,
    table: [usize; 2],
) -> Result<Coalesced, ClipError> {
    let values = values.into().data;
    check(name, indices, &values, table)?;
    Ok(with_elements!(Values, &values, e => coalesced(indices, e, table[1]), _e => not_here()))
}

fn check(
    name: &str,
    indices: &[u32],
    values: &Values<'_>,
    [rows, width]: [usize; 2],
) -> Result<(), ClipError> {
    let wrong =
        |required: String, given: String| Err(ClipError::Tensor { tensor: name.to_owned(), required, given });
    if values.dtype() == DType::F64 {
        return wrong("values of f32, f16 or bf16".into(), DType::F64.to_string());
    }
    if indices.len().checked_mul(width) != Some(values.len()) {
        let required = format!("{width} values for each of {} entries", indices.len());
        return wrong(required, values.len().to_string());
    }
    match indices.iter().enumerate().find(|(_, row)| **row as usize >= rows) {
        Some((entry, row)) => wrong(format!("indices below {rows}"), format!("{row} for entry {entry}")),
        None => Ok(()),
    }
}

fn coalesced<T: Element>(indices: &[u32], values: &[T], width: usize) -> Coalesced {
    // Duplicates side by side, in whatever order.
    let mut order: Vec<(u32, usize)> = indices.iter().copied().zip(0..).collect();
    order.sort_unstable();
    let lists: Vec<&[(u32, usize)]> = order.chunk_by(|(a, _), (b, _)| a == b).collect();
    let mut sums = vec![0.0; lists.len() * width];
    let mut work: Vec<_> = lists.iter().zip(sums.chunks_mut(width.max(1))).collect();
    threads::share(&mut work, values.len() as u64, &|_, own| {
        for (list, to) in own {
            sum(list.iter().map(|(_, entry)| &values[entry * width..(entry + 1) * width]), to);
        }
    });
    Coalesced { rows: lists.iter().map(|list| list[0].0).collect(), values: sums }
}
