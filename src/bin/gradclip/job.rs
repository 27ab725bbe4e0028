//! What a command does to a set of gradients, on the CPU path or an adapter.

use gradclip::{Clip, NonFinite, NormType, Report, Rule, Session};

use crate::failure::Failure;
use crate::groups::Part;
use crate::input::{Parameters, Set};
use crate::memory::Memory;
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
        let (mut report, memory) = Memory::clip(self, session)?;
        if self.clip.rule == Rule::Value {
            // Value clipping itself looks at the largest magnitudes only.
            let measure = self.measured_alone();
            let (norms, _) = Memory::clip(Job { clip: &measure, parts: &[], ..self }, session)?;
            for (tensor, measured) in report.tensors.iter_mut().zip(norms.tensors) {
                tensor.norm = measured.norm;
            }
        }
        Ok(Done { report, clipped: Box::new(memory) })
    }

    /// The same gradients, unscaled and sanitised alike, with the usual norm.
    fn measured_alone(self) -> Clip {
        let policy = match self.clip.non_finite {
            NonFinite::Sanitize => NonFinite::Sanitize,
            _ => NonFinite::Skip,
        };
        Clip::measure().unscale(self.clip.unscale).on_non_finite(policy)
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
