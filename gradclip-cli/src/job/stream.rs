//! Gradients that stay in their files: decided over the mapped elements, then clipped piece by piece on their way
//! out. A set may be larger than memory.

use std::io;

use gradclip::cpu::{self, Decision, GradRef, Norm};
use gradclip::{Clip, History, Report};

use crate::args::precision::Precision;
use crate::failure::Failure;
use crate::input::{Elements, Gradient, Set};
use crate::job::piece::{apply, narrowed};
use crate::job::{Gradients, Job};
use crate::output::{Clipped, OutType};
use gradclip_verify::tensor::Data;

/// Elements of a piece: some MiB, and a multiple of 16,384, so that norms and units are those of the whole.
const PIECE: usize = 1 << 20;

/// What was decided of a set.
#[derive(Debug)]
pub(crate) struct Stream<'a> {
    set: &'a Set,
    decision: Decision,
    out: OutType,
    /// Whether a result may not be rounded away from zero.
    never_above: bool,
    norm: Norm,
}

impl<'a> Stream<'a> {
    /// Measures the gradients and decides.
    pub(crate) fn decide(job: Job<'a>) -> Result<Stream<'a>, Failure> {
        let decision = decision(job, job.clip)?;
        let precision = match job.out {
            OutType::Same => Precision::of(job.set, None),
            OutType::F32 => Precision::Single,
        };
        let norm = precision.norm(job.norm_type());
        let never_above = job.clip.never_above == Some(true);
        Ok(Stream { set: job.set, decision, out: job.out, never_above, norm })
    }

    /// What was measured and decided.
    pub(crate) fn report(&self) -> &Report {
        self.decision.report()
    }
}

/// What `clip` does to the gradients of a job.
pub(crate) fn decision(job: Job<'_>, clip: &Clip) -> Result<Decision, Failure> {
    job.set.align()?;
    let all = job.set.gradients.iter();
    let elements: Vec<Elements<'_>> =
        all.map(|gradient| Elements::new(gradient.float, job.set.bytes(gradient))).collect();
    let parameters = job.parameters.map(|parameters| parameters.elements()).unwrap_or_default();
    let gradients = job.set.gradients.iter().zip(&elements).enumerate();
    let grads: Vec<GradRef<'_>> = gradients
        .map(|(i, (gradient, elements))| {
            let mut grad = GradRef::new(gradient.name.as_str(), elements.slice()).shape(&gradient.shape);
            if let Some(group) = job.parts.get(i).and_then(|part| part.group()) {
                grad = grad.group(group);
            }
            match parameters.get(i) {
                Some(Some(parameter)) => grad.parameter(parameter.slice()),
                _ => grad,
            }
        })
        .collect();
    Ok(cpu::decide(&grads, clip, &mut History::default())?)
}

impl Stream<'_> {
    fn piece(&self, i: usize, gradient: &Gradient, first: usize, bytes: &[u8]) -> Data {
        let mut piece = Data::from_bytes(gradient.float, bytes);
        if self.out == OutType::F32 {
            piece = piece.widened();
        }
        if self.decision.changes(i) {
            apply(&mut piece, &self.decision, i, first as u64);
        }
        match self.out {
            OutType::F32 => narrowed(piece, self.never_above),
            OutType::Same => piece,
        }
    }
}

impl Clipped for Stream<'_> {
    fn pieces(&mut self, i: usize, take: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let set = self.set;
        let gradient = &set.gradients[i];
        let bytes = PIECE * gradient.float.size();
        for (n, part) in set.bytes(gradient).chunks(bytes).enumerate() {
            let piece = self.piece(i, gradient, n * PIECE, part);
            self.norm.add(piece.slice());
            take(piece.bytes())?;
        }
        Ok(())
    }
}

impl Gradients for Stream<'_> {
    fn norm(&mut self) -> Result<f64, Failure> {
        Ok(self.norm.norm())
    }

    fn as_clipped(&mut self) -> &mut dyn Clipped {
        self
    }
}
