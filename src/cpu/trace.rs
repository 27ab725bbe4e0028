//! What every stage leaves behind.

use crate::clip::Clip;
use crate::history::History;
use crate::layout::{Outcome, Partial, Sum, Tally};
use crate::report::Report;
use crate::segments::Segments;
use crate::tensor::TensorInfo;

use super::block::Values;
use super::workspace::Workspace;

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

/// Norms, thresholds and coefficients: everything before something uses them.
pub(super) fn decided(
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
pub(super) fn trace(
    workspace: Workspace,
    infos: &[TensorInfo],
    parts: &Segments,
    clip: &Clip,
    history: &History,
) -> Trace {
    let report = workspace.report(infos, parts, clip, history, None);
    let Workspace { partials, tensor_sums, segment_sums, outcomes, .. } = workspace;
    Trace { partials, tensor_sums, segment_sums, outcomes, tally: history.tally, report }
}
