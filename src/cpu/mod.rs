//! The CPU path: the same stages as the GPU's on slices and ndarray views, and the same bits for
//! norm, partial sums and coefficient.
//!
//! ```
//! use gradclip::{Clip, cpu::{self, GradMut}};
//!
//! let (mut w, mut b) = ([-2.0, 0.0, 0.0, 4.0, 0.0, 0.0f32], [1.0, -2.0f32]);
//! let mut grads = [GradMut::new("w", &mut w), GradMut::new("b", &mut b)];
//! let report = cpu::clip(&mut grads, &Clip::global_norm(4.0))?;
//! assert_eq!(report.norm(), Some(5.0));
//! assert_eq!(report.coefficient(), Some(0.8));
//! assert_eq!((w[3], b), (3.2, [0.8, -1.6]));
//! # Ok::<(), gradclip::ClipError>(())
//! ```

mod apply;
pub(crate) mod coefficient;
mod combine;
mod element;
mod grads;
mod lanes;
mod power;
mod real;
mod reduce;

use rayon::prelude::*;

use crate::clip::{Clip, Kind};
use crate::error::ClipError;
use crate::layout::{CHUNK, KEEP, Outcome, Partial, Sum};
use crate::plan;
use crate::report::{self, Report, TensorInfo};

use grads::Block;
pub(crate) use grads::Contiguous;
pub use grads::GradMut;
use reduce::Scratch;

/// Sets below this many elements are not worth waking other threads for.
const SEQUENTIAL: u64 = 1 << 17;

/// Clips gradients in place and reports. Runs on rayon's current thread pool; small sets run on
/// the calling thread.
///
/// # Errors
///
/// A [`Clip`] that does not validate. Gradients are then untouched.
pub fn clip(grads: &mut [GradMut<'_>], clip: &Clip) -> Result<Report, ClipError> {
    Ok(clip_traced(grads, clip)?.report)
}

/// What every stage left behind: the records that a prepared pass leaves in its buffers, equal to
/// them in every bit.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Trace {
    /// One record a chunk, tensor by tensor.
    pub partials: Vec<Partial>,
    /// One record a tensor.
    pub tensor_sums: Vec<Sum>,
    /// One record a segment.
    pub segment_sums: Vec<Sum>,
    /// One record a segment.
    pub outcomes: Vec<Outcome>,
    /// What the records mean.
    pub report: Report,
}

/// As [`clip()`], and keeps the records of every stage.
///
/// # Errors
///
/// As [`clip()`].
pub fn clip_traced(grads: &mut [GradMut<'_>], clip: &Clip) -> Result<Trace, ClipError> {
    clip.validate()?;
    let kind = Kind::from(clip.norm);
    let mut tensors: Vec<_> = grads.iter_mut().map(GradMut::contiguous).collect();
    let segment_of = plan::segments(clip.scope, tensors.len());
    let infos = infos(&tensors, &segment_of);
    let parallel = infos.iter().map(|t| t.elements).sum::<u64>() > SEQUENTIAL;

    let chunks: Vec<u32> = tensors.iter().map(|t| t.elements().div_ceil(CHUNK as usize) as u32).collect();
    let partials = partials(&tensors, &chunks, kind, parallel);
    let tensor_sums: Vec<Sum> = consecutive(&partials, &chunks)
        .enumerate()
        .map(|(tensor, own)| {
            combine::combine(own.iter().map(|p| combine::item(p, tensor as u32, kind)), kind)
        })
        .collect();
    let members = plan::run_lengths(&segment_of, plan::segment_count(clip.scope, tensors.len()));
    let segment_sums: Vec<Sum> =
        consecutive(&tensor_sums, &members).map(|own| combine::combine(own.iter().copied(), kind)).collect();
    let setting = clip.setting();
    let outcomes: Vec<Outcome> =
        segment_sums.iter().map(|sum| coefficient::decide(sum, &setting, kind)).collect();

    apply_all(&mut tensors, &segment_of, &outcomes, parallel);
    tensors.into_iter().for_each(Contiguous::write_back);
    let report = report::report(clip, &infos, &tensor_sums, &outcomes);
    Ok(Trace { partials, tensor_sums, segment_sums, outcomes, report })
}

fn infos(tensors: &[Contiguous<'_, '_>], segment_of: &[u32]) -> Vec<TensorInfo> {
    let info = |(t, &segment): (&Contiguous<'_, '_>, &u32)| TensorInfo {
        name: t.name(),
        dtype: t.dtype(),
        elements: t.elements() as u64,
        segment,
    };
    tensors.iter().zip(segment_of).map(info).collect()
}

fn partials(tensors: &[Contiguous<'_, '_>], chunks: &[u32], kind: Kind, parallel: bool) -> Vec<Partial> {
    let work: Vec<(usize, usize)> = chunks
        .iter()
        .enumerate()
        .flat_map(|(tensor, &count)| (0..count as usize).map(move |k| (tensor, k * CHUNK as usize)))
        .collect();
    let partial = |scratch: &mut Scratch, &(tensor, first): &(usize, usize)| {
        tensors[tensor].reduce(first, kind, scratch)
    };
    if parallel {
        return work.par_iter().map_init(Scratch::new, partial).collect();
    }
    let mut scratch = Scratch::new();
    work.iter().map(|item| partial(&mut scratch, item)).collect()
}

fn apply_all(tensors: &mut [Contiguous<'_, '_>], segment_of: &[u32], outcomes: &[Outcome], parallel: bool) {
    let mut work: Vec<(Block<'_>, &Outcome)> = Vec::new();
    for (tensor, &segment) in tensors.iter_mut().zip(segment_of) {
        let outcome = &outcomes[segment as usize];
        if outcome.action != KEEP {
            work.extend(tensor.blocks_mut(CHUNK as usize).map(|block| (block, outcome)));
        }
    }
    if parallel {
        work.into_par_iter().for_each(|(block, outcome)| block.apply(outcome));
    } else {
        work.into_iter().for_each(|(block, outcome)| block.apply(outcome));
    }
}

/// Cuts `items` into consecutive runs of the given lengths.
fn consecutive<'a, T>(items: &'a [T], lengths: &'a [u32]) -> impl Iterator<Item = &'a [T]> {
    let mut rest = items;
    lengths.iter().map(move |&length| {
        let (run, after) = rest.split_at(length as usize);
        rest = after;
        run
    })
}
