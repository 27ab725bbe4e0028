//! The state of an optimiser in host memory.

use crate::error::ClipError;
use crate::tensor::TensorInfo;

/// The state of an optimiser, up to three moments a tensor; it takes its form at the first step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moments {
    /// Tensor by tensor: no, one, two or three moments of as many elements as the parameter.
    pub tensors: Vec<Vec<Vec<f32>>>,
}

impl Moments {
    /// Takes the form of these tensors with `count` moments each, if it has none yet.
    pub(super) fn fit(&mut self, infos: &[TensorInfo], count: usize) -> Result<(), ClipError> {
        if self.tensors.is_empty() {
            let zeros = |info: &TensorInfo| vec![vec![0.0; info.elements as usize]; count];
            self.tensors = infos.iter().map(zeros).collect();
            return Ok(());
        }
        let needed: Vec<Vec<usize>> = infos.iter().map(|i| vec![i.elements as usize; count]).collect();
        let given: Vec<Vec<usize>> = self.tensors.iter().map(|t| t.iter().map(Vec::len).collect()).collect();
        if needed == given {
            return Ok(());
        }
        let words = |form: &[Vec<usize>]| format!("moments of {form:?} elements");
        Err(ClipError::State { required: words(&needed), given: words(&given) })
    }
}
