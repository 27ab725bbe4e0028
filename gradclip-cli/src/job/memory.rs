//! Gradients in memory, as adapters need them: read, clipped in place, written from there.

use std::io;

use gradclip::cpu::{GradMut, Norm};
use gradclip::{NormType, Report, Session};

use crate::failure::Failure;
use crate::input::{Elements, Float};
use crate::job::{Gradients, Job};
use crate::output::{Clipped, OutType};
use gradclip_verify::tensor::{Data, Tensor};

/// All gradients of a set after the clip.
#[derive(Debug)]
pub(crate) struct Memory {
    tensors: Vec<Tensor>,
    norm: NormType,
}

impl Memory {
    /// Reads the gradients and clips them.
    pub(crate) fn clip(job: Job<'_>, session: &Session) -> Result<(Report, Memory), Failure> {
        let mut tensors = read(job)?;
        let parameters = job.parameters.map(|parameters| parameters.elements()).unwrap_or_default();
        let report = session.clip(&mut grads(job, &mut tensors, &parameters), job.clip)?;
        Ok((report, Memory { tensors, norm: job.norm_type() }))
    }
}

/// The gradients' elements, of the type in which they are clipped.
fn read(job: Job<'_>) -> Result<Vec<Tensor>, Failure> {
    let gradients = job.set.gradients.iter();
    gradients
        .map(|gradient| {
            if gradient.float == Float::F64 {
                let what = format!("tensor `{}` is F64, which adapters do not have", gradient.shown);
                return Err(Failure::Usage(what));
            }
            let data = Data::from_bytes(gradient.float, job.set.bytes(gradient));
            let data = if job.out == OutType::F32 { data.widened() } else { data };
            Ok(Tensor::new(gradient.name.clone(), data).shape(&gradient.shape))
        })
        .collect()
}

/// The gradients to clip, with what belongs to them.
fn grads<'a>(
    job: Job<'_>,
    tensors: &'a mut [Tensor],
    parameters: &'a [Option<Elements<'_>>],
) -> Vec<GradMut<'a>> {
    let tensors = tensors.iter_mut().enumerate();
    tensors
        .map(|(i, tensor)| {
            let mut grad = tensor.grad();
            if let Some(group) = job.parts.get(i).and_then(|part| part.group()) {
                grad = grad.group(group);
            }
            match parameters.get(i) {
                Some(Some(parameter)) => grad.parameter(parameter.slice()),
                _ => grad,
            }
        })
        .collect()
}

impl Clipped for Memory {
    fn pieces(&mut self, i: usize, take: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        take(self.tensors[i].data.bytes())
    }
}

impl Gradients for Memory {
    fn norm(&mut self) -> Result<f64, Failure> {
        let mut norm = Norm::new(self.norm);
        self.tensors.iter().for_each(|tensor| norm.add(tensor.data.slice()));
        Ok(norm.norm())
    }

    fn as_clipped(&mut self) -> &mut dyn Clipped {
        self
    }
}
