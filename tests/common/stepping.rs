//! An optimiser's steps on the CPU path and on a device.

use gradclip::cpu::{self, Moments};
use gradclip::{Clip, Clipper, History, Optimizer, Report, Stepper};

use super::{Data, Gpu, Placed, Placing, Tensor, steps};

/// Tensors whose parameters the CPU path moves.
pub struct Here {
    pub tensors: Vec<Tensor>,
    pub clip: Clip,
    pub optimizer: Optimizer,
    pub history: History,
    pub moments: Moments,
}

impl Here {
    pub fn new(tensors: &[Tensor], clip: &Clip, optimizer: impl Into<Optimizer>) -> Here {
        let (history, moments) = (History::default(), Moments::default());
        Here { tensors: tensors.to_vec(), clip: *clip, optimizer: optimizer.into(), history, moments }
    }

    pub fn step(&mut self) -> Report {
        let Here { tensors, clip, optimizer, history, moments } = self;
        cpu::step(&mut steps(tensors), clip, *optimizer, history, moments).unwrap()
    }

    /// Takes other gradients.
    pub fn put(&mut self, gradients: &[Vec<f32>]) {
        self.tensors.iter_mut().zip(gradients).for_each(|(tensor, g)| tensor.data = g.into());
    }

    pub fn parameters(&self) -> Vec<Vec<f32>> {
        parameters(&self.tensors)
    }
}

/// Parameters of tensors.
pub fn parameters(tensors: &[Tensor]) -> Vec<Vec<f32>> {
    tensors.iter().map(|t| t.parameter.as_ref().unwrap().floats()).collect()
}

/// The same on a device.
pub struct There<'g> {
    gpu: &'g Gpu,
    pub placed: Placed,
    pub stepper: Stepper,
}

impl<'g> There<'g> {
    pub fn new(gpu: &'g Gpu, tensors: &[Tensor], clip: &Clip, optimizer: impl Into<Optimizer>) -> There<'g> {
        There::with(gpu, &gpu.clipper, gpu.place(tensors, Placing::APART), clip, optimizer)
    }

    pub fn with(
        gpu: &'g Gpu,
        clipper: &Clipper,
        placed: Placed,
        clip: &Clip,
        optimizer: impl Into<Optimizer>,
    ) -> There<'g> {
        let stepper = clipper.prepare_step(&placed.grads, clip, optimizer).unwrap();
        There { gpu, placed, stepper }
    }

    /// Clips and steps, without a wait.
    pub fn step(&self) {
        self.gpu.submit(|encoder| self.stepper.record_step(encoder));
    }

    /// Takes other gradients.
    pub fn put(&mut self, gradients: &[Vec<f32>]) {
        self.placed.put(self.gpu, &super::named(gradients));
    }

    /// The parameters, beside which nothing was written; nor were gradients.
    pub fn parameters(&self) -> Vec<Vec<f32>> {
        let staged = self.gpu.submit(|encoder| self.gpu.stage(encoder, &self.placed.buffers));
        assert!(self.placed.untouched(&self.gpu.collect(&staged).unwrap()), "a step wrote gradients");
        let parameters = self.placed.parameters.as_ref().unwrap().read(self.gpu).unwrap();
        parameters.iter().map(Data::floats).collect()
    }

    /// The moments of each tensor.
    pub fn moments(&self) -> Vec<Vec<Vec<f32>>> {
        let moment =
            |m: &gradclip::Moment| self.gpu.gpu.read(&m.buffer, m.offset..m.offset + 4 * m.elements).unwrap();
        self.stepper.moments().iter().map(|of| of.iter().map(moment).collect()).collect()
    }
}
