//! `--params`: the parameters that the gradients of a file belong to.

use std::path::Path;

use gradclip::cpu::Slice;
use safetensors::SafeTensors;

use crate::failure::Failure;
use crate::file::{self, GradientFile};
use crate::tensor::Data;

/// One a gradient, in the order of the gradients.
#[derive(Debug)]
pub(crate) struct Parameters(Vec<Data>);

impl Parameters {
    /// Reads the parameters of `gradients`. Anything else in the file may be of any type, as the
    /// counters in a model's checkpoint are.
    pub(crate) fn read(path: &Path, gradients: &GradientFile) -> Result<Parameters, Failure> {
        file::mapped("--params", path, |bytes| {
            let (_, parsed) = file::parsed(bytes).map_err(file::broken)?;
            let of = gradients.tensors.iter().zip(&gradients.shapes);
            of.map(|(tensor, shape)| parameter(&parsed, &tensor.name, shape)).collect()
        })
        .map(Parameters)
    }

    /// The parameters of gradient `i`.
    pub(crate) fn get(&self, i: usize) -> Slice<'_> {
        self.0[i].parameter()
    }
}

fn parameter(parsed: &SafeTensors<'_>, name: &str, shape: &[u64]) -> Result<Data, String> {
    let expected =
        |but: String| format!("expected tensor `{name}` of shape {shape:?} as its gradient, but {but}");
    let view = parsed.tensor(name).map_err(|_| expected("there is none of this name".into()))?;
    if !view.shape().iter().map(|&n| n as u64).eq(shape.iter().copied()) {
        return Err(expected(format!("its shape is {:?}", view.shape())));
    }
    file::data(&view)
        .ok_or_else(|| expected(format!("it is {}; parameters may be {}", view.dtype(), file::TYPES)))
}
