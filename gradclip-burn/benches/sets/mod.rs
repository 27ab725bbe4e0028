//! The sets of gradients that the benches share.
#![allow(unreachable_pub)]

use burn::module::{Module, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Distribution, Tensor};

#[derive(Module, Debug)]
pub struct Model {
    pub parameters: Vec<Param<Tensor<1>>>,
}

impl Model {
    /// Zeros of these lengths.
    pub fn new(lengths: impl Iterator<Item = usize>, device: &Device) -> Model {
        let parameters = lengths.map(|n| Param::from_tensor(Tensor::zeros([n], device))).collect();
        Model { parameters }
    }

    /// A copy of its own of every gradient.
    pub fn grads(&self, pristine: &[Tensor<1>]) -> GradientsParams {
        let mut grads = GradientsParams::new();
        for (parameter, values) in self.parameters.iter().zip(pristine) {
            grads.register(parameter.id, values.clone().mul_scalar(1.0));
        }
        grads
    }
}

/// A gradient set: lengths of its tensors.
pub struct Set {
    pub name: String,
    pub lengths: Vec<usize>,
}

impl Set {
    pub fn elements(&self) -> usize {
        self.lengths.iter().sum()
    }

    /// Random gradients, 0.001 large.
    pub fn gradients(&self, device: &Device) -> Vec<Tensor<1>> {
        let random = |&n: &usize| Tensor::<1>::random([n], Distribution::Normal(0.0, 1e-3), device);
        self.lengths.iter().map(random).collect()
    }
}

pub fn tiny(tensors: usize, elements: usize) -> Set {
    Set { name: format!("{tensors} tensors of {elements}"), lengths: vec![elements; tensors] }
}

pub fn gpt2(width: usize) -> Set {
    let d = width;
    let square = d * d;
    let layer = [d, d, 3 * square, 3 * d, square, d, d, d, 4 * square, 4 * d, 4 * square, d];
    let mut lengths = vec![50257 * d, 1024 * d];
    lengths.extend(layer.repeat(12));
    lengths.extend([d, d]);
    Set { name: format!("GPT-2, width {d}"), lengths }
}

pub fn median(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}
