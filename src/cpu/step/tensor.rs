//! What a step is given of each tensor.

use std::sync::Arc;

use crate::cpu::fused::Operands;
use crate::cpu::grads::Slice;
use crate::error::StepError;
use crate::optimizer::at_least_0;
use crate::tensor::Group;

/// One parameter with its gradient, which is only read.
#[derive(Debug)]
pub struct StepMut<'a> {
    pub(super) operands: Operands<'a>,
    pub(super) lr_scale: f64,
    pub(super) weight_decay: Option<f64>,
}

impl<'a> StepMut<'a> {
    /// A parameter and a gradient of as many elements: `f32`, `f16` or `bf16`.
    pub fn new(
        name: impl Into<Arc<str>>,
        gradient: impl Into<Slice<'a>>,
        parameter: &'a mut [f32],
    ) -> StepMut<'a> {
        let operands = Operands::new(name.into(), gradient.into().data, parameter);
        StepMut { operands, lr_scale: 1.0, weight_decay: None }
    }

    /// Sets the shape, row-major, for scopes that cut tensors into units or rows.
    #[must_use]
    pub fn shape(mut self, shape: &[u64]) -> StepMut<'a> {
        self.operands.shape = Some(shape.into());
        self
    }

    /// Puts the tensor into a group.
    #[must_use]
    pub fn group(mut self, group: &Group) -> StepMut<'a> {
        self.operands.group = Some(group.clone());
        self
    }

    /// Sets a factor of the learning rate for this tensor. 1 unless set.
    #[must_use]
    pub fn lr_scale(self, factor: f64) -> StepMut<'a> {
        StepMut { lr_scale: factor, ..self }
    }

    /// Sets a weight decay for this tensor. That of the optimiser unless set.
    #[must_use]
    pub fn weight_decay(self, weight_decay: f64) -> StepMut<'a> {
        StepMut { weight_decay: Some(weight_decay), ..self }
    }

    pub(super) fn check(&self) -> Result<(), StepError> {
        self.operands.check("a parameter")?;
        at_least_0("learning rate factor", self.lr_scale)?;
        at_least_0("weight decay", self.weight_decay.unwrap_or(0.0))?;
        Ok(())
    }
}
