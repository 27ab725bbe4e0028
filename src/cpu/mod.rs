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
//! No bit depends on how many there are. Work is cut into portions of 65,536 to 262,144 elements, or 4,096 rows, of which an idle thread takes
//! those that a busy one has not begun: next to other work on the same cores a clip makes do with the cores that are left. Nothing
//! waits for a particular thread, and nothing is locked.

mod accumulate;
mod advance;
mod apply;
mod block;
mod blockwise;
mod change;
mod coalesce;
mod coefficient;
mod contiguous;
mod decision;
mod double;
mod element;
mod flow;
mod fused;
mod gaussian;
mod grads;
mod halves;
mod kept;
mod lanes;
mod noise;
mod parameter;
mod partials;
mod power;
mod prepared;
mod private;
#[cfg(test)]
mod random;
mod ratio;
mod recycled;
mod reduce;
mod room;
mod set;
mod skip;
mod sources;
mod stages;
mod step;
mod threads;
mod threefry;
mod threshold;
mod trace;
mod unit_outcomes;
mod unit_sums;
mod units;
mod update;
mod view;
mod workspace;

use crate::clip::Clip;
use crate::error::ClipError;
use crate::history::History;
use crate::report::Report;

use flow::{clip_in_double, clip_in_single};
use grads::in_one_piece;
use room::Room;
use set::Set;
use trace::trace;
use workspace::Workspace;

pub use accumulate::{SumMut, accumulate, accumulate_clipped};
pub(crate) use block::Values;
pub use coalesce::{Coalesced, coalesce};
#[cfg(all(feature = "session", not(target_arch = "wasm32")))]
pub(crate) use contiguous::Contiguous;
pub use decision::{Decision, GradRef, Norm, decide};
pub use grads::{GradMut, Slice, SliceMut};
pub use parameter::ParameterMut;
pub use prepared::{Prepared, prepare};
pub use private::{PrivateSum, prepare_private};
#[cfg(test)]
pub(crate) use random::words;
pub use step::{
    Moments, PreparedStep, StepMut, Trainer, prepare_step, prepare_training, prepare_training_skipping, step,
};
#[doc(hidden)]
pub use trace::Trace;

/// Clips gradients in place and reports. Runs on rayon's current thread pool; small sets run on
/// the calling thread.
///
/// # Errors
///
/// A [`Clip`] that does not validate, or tensors without what it needs; an adaptive threshold, a loss scale, a norm that is handed in or a rule that leaves out steps by earlier ones,
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
            what: "an adaptive threshold, a loss scale, a norm that is handed in or a rule that leaves out steps by earlier ones",
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
        let workspace = Workspace::in_place(&set.infos, &set.parts, clip);
        return Ok(clip_set(grads, &set, &parameters, clip, history, workspace).report);
    }
    let thresholds = set.parts.thresholds(clip);
    Ok(in_one_piece(grads, |blocks| clip_in_double(blocks, &parameters, &set, (clip, &thresholds), history)))
}

/// As [`clip()`], and keeps the records of every stage.
///
/// # Errors
///
/// As [`clip()`].
#[doc(hidden)]
pub fn clip_traced(grads: &mut [GradMut<'_>], clip: &Clip) -> Result<Trace, ClipError> {
    remembers_nothing(clip)?;
    clip_traced_with(grads, clip, &mut History::default())
}

/// As [`clip_with()`], and keeps the records of every stage.
///
/// # Errors
///
/// As [`clip_with()`], and [`ClipError::Combination`] for a set with `f64`, which has other records.
#[doc(hidden)]
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
    let mut workspace = Workspace::new(&set.infos, &set.parts);
    workspace.traced = true;
    Ok(clip_set(grads, &set, &parameters, clip, history, workspace))
}

fn clip_set(
    grads: &mut [GradMut<'_>],
    set: &Set,
    parameters: &[Values<'_>],
    clip: &Clip,
    history: &mut History,
    mut workspace: Workspace,
) -> Trace {
    let asked = (clip, &set.parts.thresholds(clip)[..]);
    in_one_piece(grads, |blocks| {
        clip_in_single(blocks, parameters, set, asked, &mut workspace, history, &mut Room::default());
    });
    trace(workspace, &set.infos, &set.parts, clip, history)
}
