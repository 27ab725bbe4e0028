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
//! assert_eq!(report.coefficient(), Some(f64::from(0.8f32)));
//! assert_eq!((w[3], b), (3.2, [0.8, -1.6]));
//! # Ok::<(), gradclip::ClipError>(())
//! ```
//!
//! # Threads
//!
//! Sets of more than 131,072 elements are shared by the threads of rayon's current pool: the global one, or that of whoever calls
//! (`pool.install(|| cpu::clip(..))`); one of a single thread, or the crate without its feature `rayon`, leaves all to one thread.
//! No bit depends on how many there are. Work is cut into portions of 65,536 to 262,144 elements, of which an idle thread takes
//! those that a busy one has not begun: beside other work on the same cores a clip ends with what cores are left. Nothing
//! waits for a particular thread, and nothing is locked.

mod accumulate;
mod advance;
mod apply;
pub(crate) mod coefficient;
mod combine;
mod contiguous;
mod decision;
mod double;
mod element;
mod grads;
mod joint;
mod lanes;
mod partials;
mod power;
mod prepared;
#[cfg(test)]
mod random;
mod reduce;
mod room;
mod stages;
mod step;
mod threads;
mod threshold;
mod units;
mod update;
mod workspace;

use bytemuck::Zeroable;

use crate::clip::{Clip, LossScale};
use crate::error::ClipError;
use crate::history::History;
use crate::layout::{Hyper, Outcome, Partial, Sum, Tally};
use crate::report::Report;
use crate::segments::{Segments, TensorInfo, check_in_place};

use room::{Room, recycled};
use workspace::Workspace;

pub use accumulate::{SumMut, accumulate, accumulate_clipped};
pub(crate) use contiguous::Contiguous;
pub use decision::{Decision, GradRef, Norm, decide};
pub(crate) use grads::{Block, Values};
pub use grads::{GradMut, Slice, SliceMut};
pub use prepared::{Prepared, prepare};
#[cfg(test)]
pub(crate) use random::words;
pub use step::{Moments, StepMut, step};

/// Clips gradients in place and reports. Runs on rayon's current thread pool; small sets run on
/// the calling thread.
///
/// # Errors
///
/// A [`Clip`] that does not validate, or tensors without what it needs; an adaptive threshold or a loss scale,
/// which would stay at its first step for ever: [`clip_with()`] remembers. Gradients are then untouched.
pub fn clip(grads: &mut [GradMut<'_>], clip: &Clip) -> Result<Report, ClipError> {
    remembers_nothing(clip)?;
    clip_with(grads, clip, &mut History::default())
}

/// That a clip needs no history.
fn remembers_nothing(clip: &Clip) -> Result<(), ClipError> {
    match clip.remembers() {
        false => Ok(()),
        true => Err(ClipError::Combination {
            what: "an adaptive threshold or a loss scale",
            required: "a history that is kept from step to step: `cpu::clip_with`, `Session::clip_with`",
        }),
    }
}

/// As [`clip()`], for step after step: `history` counts them, and keeps what adaptive thresholds
/// remember. It begins as [`History::default`]. Tensors that come again are cheaper with [`prepare()`].
///
/// # Errors
///
/// As [`clip()`], and [`ClipError::State`] for the history of another clip.
pub fn clip_with(grads: &mut [GradMut<'_>], clip: &Clip, history: &mut History) -> Result<Report, ClipError> {
    let (set, parameters) = Set::of(grads, clip)?;
    history.fit(clip, set.parts.limits.len())?;
    if !set.double {
        return Ok(clip_set(grads, &set, &parameters, clip, history).report);
    }
    let thresholds = set.parts.thresholds(clip);
    Ok(in_one_piece(grads, |blocks| clip_in_double(blocks, &parameters, &set, (clip, &thresholds), history)))
}

/// Runs with the elements of each gradient in one piece, and puts back what lies otherwise.
fn in_one_piece<R>(grads: &mut [GradMut<'_>], run: impl FnOnce(&mut [Block<'_>]) -> R) -> R {
    let mut tensors: Vec<_> = grads.iter_mut().map(GradMut::contiguous).collect();
    let mut blocks: Vec<Block<'_>> = tensors.iter_mut().map(Contiguous::block).collect();
    let result = run(&mut blocks);
    tensors.into_iter().for_each(Contiguous::write_back);
    result
}

/// Tensors that a clip fits.
#[derive(Debug)]
struct Set {
    infos: Vec<TensorInfo>,
    parts: Segments,
    /// Whether all of it is measured as `f64`.
    double: bool,
}

impl Set {
    /// With the parameters that the clip needs.
    fn of<'a>(grads: &[GradMut<'a>], clip: &Clip) -> Result<(Set, Vec<Values<'a>>), ClipError> {
        let given: Vec<_> = grads.iter().map(GradMut::values).collect();
        Set::new(grads.iter().map(GradMut::info).collect(), &given, clip)
    }

    /// Checks everything that can be wrong but the history.
    fn new<'a>(
        infos: Vec<TensorInfo>,
        given: &[Option<Values<'a>>],
        clip: &Clip,
    ) -> Result<(Set, Vec<Values<'a>>), ClipError> {
        let parts = Segments::new(&infos, clip)?;
        let parameters = parameters(given, &infos, &parts)?;
        check_in_place(&infos, clip)?;
        let double = double::comes_here(&infos, &parameters, clip);
        if double {
            double::check(clip)?;
        }
        Ok((Set { infos, parts, double }, parameters))
    }
}

/// Clips gradients of which none is measured as `f64`. The records stay in `workspace`.
fn clip_in_single(
    blocks: &mut [Block<'_>],
    parameters: &[Values<'_>],
    set: &Set,
    (clip, thresholds): (&Clip, &[f64]),
    workspace: &mut Workspace,
    history: &mut History,
    room: &mut Room,
) {
    let mut values = recycled(std::mem::take(&mut room.values));
    values.extend(blocks.iter().map(Block::values));
    workspace.decide(&values, parameters, &set.parts, (clip, thresholds), history);
    room.values = recycled(values);
    advance_without_step(clip, history);
    if history.tally.changed == 0 {
        return;
    }
    let mut work = recycled(std::mem::take(&mut room.work));
    let pieces = blocks.iter_mut().zip(&set.parts.owners).map(|(block, &owner)| (block.again(), owner, 0));
    stages::apply(pieces, &workspace.outcomes, &mut work);
    room.work = recycled(work);
}

fn clip_in_double(
    blocks: &mut [Block<'_>],
    parameters: &[Values<'_>],
    set: &Set,
    (clip, thresholds): (&Clip, &[f64]),
    history: &mut History,
) -> Report {
    let Set { infos, parts, .. } = set;
    let values: Vec<Values<'_>> = blocks.iter().map(Block::values).collect();
    let (decided, report) = double::decide(&values, parameters, infos, parts, (clip, thresholds), history);
    drop(values);
    let all = blocks.iter_mut().map(Block::again).zip(&parts.owners).zip(infos);
    let changed = all.filter(|((_, owner), _)| decided.changes(**owner));
    decided.apply(changed.map(|((block, &owner), info)| (owner, info.dtype, 0, block)).collect());
    report
}

/// What every stage left behind: the records that a prepared pass leaves in its buffers, equal to
/// them in every bit.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Trace {
    /// One record a chunk, tensor by tensor, then those of the parameters.
    pub partials: Vec<Partial>,
    /// One record a tensor, in the order of [`Plan::sum_of`](crate::plan::Plan::sum_of), then those of
    /// the parameters.
    pub tensor_sums: Vec<Sum>,
    /// One record a segment; that of the whole set, and those of the parameters, follow.
    pub segment_sums: Vec<Sum>,
    /// One record a segment; that of the whole set follows.
    pub outcomes: Vec<Outcome>,
    /// The steps so far.
    pub tally: Tally,
    /// What the records mean.
    pub report: Report,
}

/// As [`clip()`], and keeps the records of every stage.
///
/// # Errors
///
/// As [`clip()`].
pub fn clip_traced(grads: &mut [GradMut<'_>], clip: &Clip) -> Result<Trace, ClipError> {
    remembers_nothing(clip)?;
    clip_traced_with(grads, clip, &mut History::default())
}

/// As [`clip_with()`], and keeps the records of every stage.
///
/// # Errors
///
/// As [`clip_with()`], and [`ClipError::Combination`] for a set with `f64`, which has other records.
pub fn clip_traced_with(
    grads: &mut [GradMut<'_>],
    clip: &Clip,
    history: &mut History,
) -> Result<Trace, ClipError> {
    let (set, parameters) = Set::of(grads, clip)?;
    if set.double {
        return Err(ClipError::Combination {
            what: "a trace of a set with f64",
            required: "gradients of f32, f16 or bf16; for others `cpu::clip_with` reports",
        });
    }
    history.fit(clip, set.parts.limits.len())?;
    Ok(clip_set(grads, &set, &parameters, clip, history))
}

fn clip_set(
    grads: &mut [GradMut<'_>],
    set: &Set,
    parameters: &[Values<'_>],
    clip: &Clip,
    history: &mut History,
) -> Trace {
    let mut workspace = Workspace::new(&set.infos, &set.parts);
    let asked = (clip, &set.parts.thresholds(clip)[..]);
    in_one_piece(grads, |blocks| {
        clip_in_single(blocks, parameters, set, asked, &mut workspace, history, &mut Room::default());
    });
    trace(workspace, &set.infos, &set.parts, clip, history)
}

/// The next loss scale, where no optimiser's step is counted.
fn advance_without_step(clip: &Clip, history: &mut History) {
    let hyper = LossScale::add_to(clip.loss_scale, Hyper::zeroed());
    advance::advance(&hyper, &history.tally, &mut history.progress);
}

/// Norms, thresholds and coefficients: everything before something uses them.
fn decided(
    tensors: &[Values<'_>],
    parameters: &[Values<'_>],
    infos: &[TensorInfo],
    parts: &Segments,
    clip: &Clip,
    history: &mut History,
) -> Trace {
    let mut workspace = Workspace::new(infos, parts);
    workspace.decide(tensors, parameters, parts, (clip, &parts.thresholds(clip)), history);
    trace(workspace, infos, parts, clip, history)
}

/// What a step left in its records.
fn trace(
    workspace: Workspace,
    infos: &[TensorInfo],
    parts: &Segments,
    clip: &Clip,
    history: &History,
) -> Trace {
    let report = workspace.report(infos, parts, clip, history);
    let Workspace { partials, tensor_sums, segment_sums, outcomes, .. } = workspace;
    Trace { partials, tensor_sums, segment_sums, outcomes, tally: history.tally, report }
}

/// The parameters that the clip needs, checked. Those of excluded tensors are not read.
fn parameters<'a>(
    given: &[Option<Values<'a>>],
    infos: &[TensorInfo],
    parts: &Segments,
) -> Result<Vec<Values<'a>>, ClipError> {
    if !parts.parameters {
        return Ok(Vec::new());
    }
    let wrong = |info: &TensorInfo, given: usize| ClipError::Tensor {
        tensor: info.name.to_string(),
        required: format!("a parameter of {} elements", info.elements),
        given: given.to_string(),
    };
    given
        .iter()
        .zip(infos)
        .map(|(values, info)| match values {
            _ if info.excluded() => Ok(Values::F32(&[])),
            Some(values) if values.len() as u64 == info.elements => Ok(*values),
            other => Err(wrong(info, other.map_or(0, |v| v.len()))),
        })
        .collect()
}
