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
mod stages;
mod threshold;
mod units;

use crate::clip::{Clip, Kind};
use crate::error::ClipError;
use crate::history::History;
use crate::layout::{Outcome, Partial, Sum, Tally};
use crate::report::{self, Report};
use crate::segments::{Segments, TensorInfo};

pub(crate) use grads::{Contiguous, Values};
pub use grads::{GradMut, Parameter};

/// Clips gradients in place and reports. Runs on rayon's current thread pool; small sets run on
/// the calling thread.
///
/// # Errors
///
/// A [`Clip`] that does not validate, or tensors without what it needs. Gradients are then untouched.
pub fn clip(grads: &mut [GradMut<'_>], clip: &Clip) -> Result<Report, ClipError> {
    clip_with(grads, clip, &mut History::default())
}

/// As [`clip()`], for step after step: `history` counts them, and keeps what adaptive thresholds
/// remember. It begins as [`History::default`].
///
/// # Errors
///
/// As [`clip()`], and [`ClipError::State`] for the history of another clip.
pub fn clip_with(grads: &mut [GradMut<'_>], clip: &Clip, history: &mut History) -> Result<Report, ClipError> {
    Ok(clip_traced_with(grads, clip, history)?.report)
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
    clip_traced_with(grads, clip, &mut History::default())
}

/// As [`clip_with()`], and keeps the records of every stage.
///
/// # Errors
///
/// As [`clip_with()`].
pub fn clip_traced_with(
    grads: &mut [GradMut<'_>],
    clip: &Clip,
    history: &mut History,
) -> Result<Trace, ClipError> {
    let kind = Kind::from(clip.norm);
    let infos: Vec<TensorInfo> = grads.iter().map(GradMut::info).collect();
    let parts = Segments::new(&infos, clip)?;
    let parameters = parameters(grads, &infos, &parts)?;
    history.fit(clip, parts.limits.len())?;
    let mut tensors: Vec<_> = grads.iter_mut().map(GradMut::contiguous).collect();

    let sources = stages::sources(&tensors, &parameters, &parts);
    let partials = stages::partials(&sources, kind);
    let tensor_sums = stages::tensor_sums(&sources, &partials, &parts, kind);
    let segment_sums = stages::segment_sums(&sources, &partials, &tensor_sums, &parts, kind);
    drop(sources);
    let settings = parts.settings(clip);
    stages::thresholds(history, &parts, &settings, &segment_sums, kind);
    let outcomes = stages::outcomes(history, &parts, &settings, &segment_sums, kind);
    stages::apply(&mut tensors, &parts, &outcomes);
    tensors.into_iter().for_each(Contiguous::write_back);

    // Of units and rows only the whole set is reported.
    let reported = if parts.cut() { &outcomes[parts.count as usize..] } else { &outcomes[..] };
    let report = report::report(clip, &infos, &parts, &tensor_sums, reported, &history.tally);
    Ok(Trace { partials, tensor_sums, segment_sums, outcomes, tally: history.tally, report })
}

/// The parameters that the clip needs, checked.
fn parameters<'a>(
    grads: &[GradMut<'a>],
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
    grads
        .iter()
        .zip(infos)
        .map(|(grad, info)| {
            let values = grad.values().ok_or_else(|| wrong(info, 0))?;
            if values.len() as u64 == info.elements { Ok(values) } else { Err(wrong(info, values.len())) }
        })
        .collect()
}
