//! What clips and steps that are prepared keep from step to step: settings, checked tensors, records, history.

use crate::clip::Clip;
use crate::error::ClipError;
use crate::exchange::{Exchange, Sums};
use crate::history::History;
use crate::report::{self, Report, SegmentReport};
use crate::tensor::{DType, TensorInfo};

use super::block::Values;
use super::set::Set;
use super::workspace::Workspace;

/// That gradients are as many, as long and of the types that were prepared.
pub(super) fn check(
    infos: &[TensorInfo],
    given: impl ExactSizeIterator<Item = (usize, DType)>,
) -> Result<(), ClipError> {
    if given.len() != infos.len() {
        let (required, given) = (infos.len(), given.len());
        return Err(ClipError::Count { required, given });
    }
    for ((len, dtype), info) in given.zip(infos) {
        if len as u64 != info.elements || dtype != info.dtype {
            let required = format!("a gradient of {} elements of {}, as prepared", info.elements, info.dtype);
            return Err(wrong(info, required, format!("{len} of {dtype}")));
        }
    }
    Ok(())
}

/// A tensor is not what is required of it.
fn wrong(info: &TensorInfo, required: String, given: String) -> ClipError {
    ClipError::Tensor { tensor: info.name.to_string(), required, given }
}

/// A clip of tensors of one form, with the records of its last step.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) clip: Clip,
    /// One a limit.
    pub(super) thresholds: Vec<f64>,
    pub(super) set: Set,
    pub(super) workspace: Workspace,
    pub(super) history: History,
    /// Whether a norm half waits for what follows it.
    pub(super) measured: bool,
}

/// A half of a step without the one before it.
const HALVES: ClipError = ClipError::Combination {
    what: "the second half of a step",
    required: "the first one before it, since the last step",
};

impl Kept {
    /// With a workspace of the set, and a history that has not begun.
    pub(super) fn new(set: Set, clip: &Clip, workspace: Workspace) -> Result<Kept, ClipError> {
        let mut history = History::default();
        history.fit(clip, set.parts.limits.len())?;
        let thresholds = set.parts.thresholds(clip);
        Ok(Kept { clip: *clip, thresholds, workspace, set, history, measured: false })
    }

    /// As [`check`], of those that were prepared.
    pub(super) fn check(
        &self,
        given: impl ExactSizeIterator<Item = (usize, DType)>,
    ) -> Result<(), ClipError> {
        check(&self.set.infos, given)
    }

    /// Tensor `i` is not what is required of it.
    pub(super) fn wrong(&self, i: usize, required: String, given: String) -> ClipError {
        wrong(&self.set.infos[i], required, given)
    }

    /// Norms, thresholds and coefficients of gradients of which none is measured as `f64`.
    pub(super) fn decide(&mut self, gradients: &[Values<'_>], parameters: &[Values<'_>]) {
        let Kept { clip, thresholds, set, workspace, history, measured } = self;
        *measured = false;
        workspace.decide(gradients, parameters, &set.parts, (clip, thresholds), history);
    }

    /// The sums that the others follow from, of gradients of which none is measured as `f64`.
    pub(super) fn measure(&mut self, gradients: &[Values<'_>], parameters: &[Values<'_>]) {
        let Kept { clip, set, workspace, history, .. } = self;
        workspace.whole_records(&set.infos, &set.parts);
        workspace.measure(gradients, parameters, &set.parts, clip, history);
        self.measured = true;
    }

    /// What follows from the sums of the half before it.
    pub(super) fn conclude(&mut self) -> Result<(), ClipError> {
        let Kept { clip, thresholds, set, workspace, history, measured } = self;
        if !std::mem::take(measured) {
            return Err(HALVES);
        }
        workspace.conclude(&set.parts, (clip, thresholds), history);
        Ok(())
    }

    /// What ranks exchange between the halves.
    pub(super) fn exchange(&self, counts: &[bool], steps: bool) -> Result<Exchange, ClipError> {
        let Set { infos, parts, double } = &self.set;
        if *double {
            let required = "gradients of f32, f16 or bf16";
            return Err(ClipError::Combination { what: "a clip over several ranks", required });
        }
        Exchange::new(infos, parts, &self.clip, (counts, steps))
    }

    /// Hands over what the norm half measured.
    pub(super) fn begin_exchange(&self, exchange: &mut Exchange) -> Result<(), ClipError> {
        if !self.measured {
            return Err(HALVES);
        }
        exchange.begin_with(&self.workspace.partials, &self.workspace.tensor_sums)
    }

    /// Takes what all ranks measured.
    pub(super) fn end_exchange(&mut self, exchange: &mut Exchange) -> Result<(), ClipError> {
        if !self.measured {
            return Err(HALVES);
        }
        let Workspace { tensor_sums, segment_sums, .. } = &mut self.workspace;
        let Sums { tensors, segments, first } = exchange.end(tensor_sums.len(), segment_sums.len())?;
        tensor_sums.copy_from_slice(tensors);
        segment_sums[first..first + segments.len()].copy_from_slice(segments);
        Ok(())
    }

    /// Changes the threshold of every limit; groups lose their own.
    pub(super) fn set_threshold(&mut self, threshold: f64) -> Result<(), ClipError> {
        Clip { threshold, ..self.clip }.validate()?;
        self.thresholds.fill(threshold);
        Ok(())
    }

    /// The clip with another factor.
    pub(super) fn with_unscale(&self, unscale: f32) -> Result<Clip, ClipError> {
        let clip = self.clip.unscale(unscale);
        clip.validate()?;
        Ok(clip)
    }

    pub(super) fn restore_history(&mut self, mut history: History) -> Result<(), ClipError> {
        history.fit(&self.clip, self.set.parts.limits.len())?;
        self.history = history;
        Ok(())
    }

    /// The only segment that is clipped, once there was a step.
    pub(super) fn whole(&self) -> Option<SegmentReport> {
        let (parts, workspace) = (&self.set.parts, &self.workspace);
        // Outcomes of units and rows are not reported, also where there is one.
        if parts.cut() {
            return None;
        }
        let mut limited = parts.limits.iter().filter(|l| !l.excluded);
        let limit = limited.next().filter(|l| limited.next().is_none() && l.segments == 1)?;
        workspace.reported(parts).get(limit.first as usize).map(report::segment)
    }

    /// Whether there was a step.
    pub(super) fn begun(&self) -> bool {
        self.workspace.tensor_sums.len() == self.set.parts.sums()
    }

    /// What the last step measured and did. `lr` is its learning rate, if it had one.
    pub(super) fn report(&self, lr: Option<f32>) -> Report {
        let Kept { clip, set: Set { infos, parts, .. }, workspace, history, .. } = self;
        workspace.report(infos, parts, clip, history, lr)
    }
}
