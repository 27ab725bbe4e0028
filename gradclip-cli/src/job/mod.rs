//! What a command does to a set of gradients, on the CPU path or an adapter.

mod memory;
mod piece;
mod stream;

use gradclip::{Clip, NonFinite, NormType, Report, Rule, Session};

use crate::args::groups::Part;
use crate::failure::Failure;
use crate::input::{Parameters, Set};
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

    /// Does it.
    pub(crate) fn run(self, session: &Session) -> Result<Done<'a>, Failure> {
        let measured = match self.clip.rule {
            // Value clipping itself looks at the largest magnitudes only.
            Rule::Value => self.norms(session)?,
            _ => Vec::new(),
        };
        let mut done = if session.adapter().is_some() {
            let (report, memory) = Memory::clip(self, session)?;
            Done { report, clipped: Box::new(memory) as Box<dyn Gradients> }
        } else {
            let stream = Stream::decide(self)?;
            Done { report: stream.report().clone(), clipped: Box::new(stream) }
        };
        for (tensor, norm) in done.report.tensors.iter_mut().zip(measured) {
            tensor.norm = norm;
        }
        Ok(done)
    }

    /// The usual norms of the tensors.
    fn norms(self, session: &Session) -> Result<Vec<f64>, Failure> {
        let measure = self.measured_alone();
        let job = Job { clip: &measure, parts: &[], ..self };
        let report = match session.adapter() {
            Some(_) => Memory::clip(job, session)?.0,
            None => stream::decision(job, &measure)?.report().clone(),
        };
        Ok(report.tensors.iter().map(|tensor| tensor.norm).collect())
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
