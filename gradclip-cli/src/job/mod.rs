//! What a command does to a set of gradients, on the CPU path or an adapter.

#[cfg(not(target_arch = "wasm32"))]
mod memory;
mod piece;
mod stream;

#[cfg(not(target_arch = "wasm32"))]
use gradclip::Session;
use gradclip::{Clip, NonFinite, NormType, Report, Rule};

use crate::args::groups::Part;
use crate::failure::Failure;
use crate::input::{Parameters, Set};
#[cfg(not(target_arch = "wasm32"))]
use crate::job::memory::Memory;
use crate::job::stream::Stream;
use crate::output::{Clipped, OutType};

/// A set, and all that is to be done to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job<'a> {
    pub(crate) set: &'a Set,
    /// One a gradient, or none at all.
    pub(crate) parts: &'a [Part],
    pub(crate) parameters: Option<&'a Parameters>,
    pub(crate) clip: &'a Clip,
    pub(crate) out: OutType,
}

/// What was measured, and the gradients that follow from it.
pub(crate) struct Done<'a> {
    pub(crate) report: Report,
    pub(crate) clipped: Box<dyn Gradients + 'a>,
}

impl Done<'_> {
    /// With the norms that are to be told, where they are others.
    fn told(mut self, norms: Option<Vec<f64>>) -> Self {
        for (tensor, norm) in self.report.tensors.iter_mut().zip(norms.into_iter().flatten()) {
            tensor.norm = norm;
        }
        self
    }
}

/// Gradients after the clip, and their norm.
pub(crate) trait Gradients: Clipped {
    /// The norm of all gradients as they are written. Once every one was handed out.
    fn norm(&mut self) -> Result<f64, Failure>;
    /// As what takes gradients piece by piece.
    fn as_clipped(&mut self) -> &mut dyn Clipped;
}

impl<'a> Job<'a> {
    /// Only measures.
    pub(crate) fn measure(set: &'a Set, clip: &'a Clip) -> Job<'a> {
        Job { set, parts: &[], parameters: None, clip, out: OutType::Same }
    }

    /// Does it on what a session has.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn run(self, session: &Session) -> Result<Done<'a>, Failure> {
        if session.adapter().is_none() {
            return self.on_cpu();
        }
        let norms = self.norms(|job| Ok(Memory::clip(job, session)?.0))?;
        let (report, memory) = Memory::clip(self, session)?;
        Ok(Done { report, clipped: Box::new(memory) as Box<dyn Gradients> }.told(norms))
    }

    /// Does it on the CPU path.
    pub(crate) fn on_cpu(self) -> Result<Done<'a>, Failure> {
        let norms = self.norms(|job| Ok(stream::decision(job, job.clip)?.report().clone()))?;
        let stream = Stream::decide(self)?;
        let report = stream.report().clone();
        Ok(Done { report, clipped: Box::new(stream) as Box<dyn Gradients> }.told(norms))
    }

    /// The usual norms of the tensors where the clip itself looks at others: value clipping at the largest magnitudes.
    fn norms(
        self,
        measure: impl FnOnce(Job<'_>) -> Result<Report, Failure>,
    ) -> Result<Option<Vec<f64>>, Failure> {
        if self.clip.rule != Rule::Value {
            return Ok(None);
        }
        let clip = self.measured_alone();
        let report = measure(Job { clip: &clip, parts: &[], ..self })?;
        Ok(Some(report.tensors.iter().map(|tensor| tensor.norm).collect()))
    }

    /// The same gradients, unscaled and sanitised alike, with the usual norm.
    fn measured_alone(self) -> Clip {
        let policy = match self.clip.non_finite {
            NonFinite::Sanitize => NonFinite::Sanitize,
            _ => NonFinite::Skip,
        };
        let lossy = self.clip.lossy_unscale;
        Clip::measure().unscale(self.clip.unscale).lossy_unscale(lossy).on_non_finite(policy)
    }

    /// The norm that is told of gradients.
    pub(crate) fn norm_type(self) -> NormType {
        told(self.clip)
    }
}

/// Value clipping is reported with the usual norms, not with the one it looks at.
pub(crate) fn told(clip: &Clip) -> NormType {
    if clip.rule == Rule::Value { NormType::Two } else { clip.norm }
}
