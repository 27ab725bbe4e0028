//! The state of an optimiser in host memory.

use crate::error::ClipError;

/// The state of an optimiser, up to three moments a tensor; it takes its form at the first step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moments {
    /// Tensor by tensor: no, one, two or three moments of as many elements as the parameter.
    pub tensors: Vec<Vec<Vec<f32>>>,
}

impl Moments {
    /// Takes the form of parameters of so many elements with `count` moments each, if it has none yet.
    pub(super) fn fit(
        &mut self,
        elements: impl Iterator<Item = usize> + Clone,
        count: usize,
    ) -> Result<(), ClipError> {
        if self.tensors.is_empty() {
            self.tensors = elements.map(|elements| vec![vec![0.0; elements]; count]).collect();
            return Ok(());
        }
        let needed: Vec<Vec<usize>> = elements.map(|elements| vec![elements; count]).collect();
        let given: Vec<Vec<usize>> = self.tensors.iter().map(|t| t.iter().map(Vec::len).collect()).collect();
        if needed == given {
            return Ok(());
        }
        let words = |form: &[Vec<usize>]| format!("moments of {form:?} elements");
        Err(ClipError::State { required: words(&needed), given: words(&given) })
    }
}
