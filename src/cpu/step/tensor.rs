//! What a step is given of each tensor.

use std::sync::Arc;

use crate::cpu::fused::Operands;
use crate::cpu::grads::Slice;
use crate::cpu::parameter::ParameterMut;
use crate::error::StepError;
use crate::optimizer::at_least_0;
use crate::tensor::{Group, Precision};

/// One parameter with its gradient, which is only read.
#[derive(Debug)]
pub struct StepMut<'a> {
    pub(super) operands: Operands<'a>,
    pub(super) lr_scale: f64,
    pub(super) weight_decay: Option<f64>,
    /// Key of what rounds the parameter by chance.
    pub(super) stochastic: Option<u64>,
    pub(super) limits_update: bool,
}

impl<'a> StepMut<'a> {
    /// A parameter and a gradient of as many elements: `f32`, `f16` or `bf16`. A parameter of 16 bits comes with its `f32` master,
    /// see [`ParameterMut`].
    ///
    /// ```
    /// use gradclip::{Clip, History, Sgd, cpu::{self, Moments, StepMut}};
    /// use half::bf16;
    ///
    /// let (mut master, mut w) = ([0.0f32; 2], [bf16::from_f32(1.0); 2]);
    /// let g = [1.0f32, -1.0];
    /// let (mut history, mut moments) = (History::default(), Moments::default());
    /// for _ in 0..4 {
    ///     let mut steps = [StepMut::new("w", &g[..], (&mut master[..], &mut w[..]))];
    ///     let clip = Clip::global_norm(f32::INFINITY);
    ///     cpu::step(&mut steps, &clip, Sgd::new(2f64.powi(-10)), &mut history, &mut moments)?;
    /// }
    /// // A step is less than a bf16 of 1 tells; four are not lost.
    /// assert_eq!(master, [1.0 - 4.0 / 1024.0, 1.0 + 4.0 / 1024.0]);
    /// assert_eq!(w, master.map(bf16::from_f32));
    /// # Ok::<(), gradclip::StepError>(())
    /// ```
    pub fn new(
        name: impl Into<Arc<str>>,
        gradient: impl Into<Slice<'a>>,
        parameter: impl Into<ParameterMut<'a>>,
    ) -> StepMut<'a> {
        let operands = Operands::new(name.into(), gradient.into().data, parameter.into());
        StepMut { operands, lr_scale: 1.0, weight_decay: None, stochastic: None, limits_update: true }
    }

    /// Rounds a `bf16` parameter without a master by chance: as
    /// [`Grad::stochastic_rounding`](crate::Grad::stochastic_rounding).
    #[must_use]
    pub fn stochastic_rounding(self, seed: u64) -> StepMut<'a> {
        StepMut { stochastic: Some(seed), ..self }
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

    /// Sets whether the optimiser's limit of updates holds for this tensor: as [`Grad::limits_update`](crate::Grad::limits_update).
    #[must_use]
    pub fn limits_update(self, limits: bool) -> StepMut<'a> {
        StepMut { limits_update: limits, ..self }
    }

    pub(super) fn check(&self) -> Result<(), StepError> {
        self.operands.check("a parameter")?;
        let precision = self.operands.target.precision();
        if self.stochastic.is_some() != (precision == Precision::Stochastic) {
            let required =
                "a bf16 parameter without a master for a seed to be rounded by chance, and a seed for one";
            let seed = if self.stochastic.is_some() { "a seed" } else { "no seed" };
            return Err(self.operands.wrong(required.into(), format!("{seed} for {precision:?}")).into());
        }
        at_least_0("learning rate factor", self.lr_scale)?;
        at_least_0("weight decay", self.weight_decay.unwrap_or(0.0))?;
        Ok(())
    }
}
