//! What a step is given of each tensor.

use std::sync::Arc;

use crate::cpu::fused::Operands;
use crate::cpu::grads::Slice;
use crate::cpu::parameter::ParameterMut;
use crate::error::{ClipError, StepError};
use crate::optimizer::at_least_0;
use crate::tensor::{Group, Precision};

/// What has the shape of its parameter.
pub(super) const TO_PREPARE: &str = "to be prepared: `cpu::step` takes rows";

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

    /// Says that the gradient has these rows of the parameter, a table of `f32`, ascending and each once: the lazy steps of
    /// PyTorch's SparseAdam and TensorFlow's LazyAdam. Other rows keep every bit, and so do their moments;
    /// corrections are those of all steps so far. As in these, Adam's eps is then added before the second moment is corrected
    /// ([`Adam::eps_hat`](crate::Adam::eps_hat)). Weight decay is that of the rows named. For [`step`](super::step()) alone: what is
    /// prepared has one form.
    ///
    /// ```
    /// use gradclip::{Clip, History, Sgd, cpu::{self, Moments, StepMut}};
    ///
    /// let mut table = [1.0f32; 20]; // 10 rows of 2
    /// let embedding = cpu::coalesce("wte", &[7, 2, 7], &[3.0f32, 0.0, 1.0, 1.0, 0.0, 4.0][..], [10, 2])?;
    /// let mut steps = [StepMut::new("wte", &embedding.values[..], &mut table).rows(&embedding.rows)];
    /// let (mut history, mut moments) = (History::default(), Moments::default());
    /// let clip = Clip::global_norm(f32::INFINITY);
    /// cpu::step(&mut steps, &clip, Sgd::new(0.5), &mut history, &mut moments)?;
    /// assert_eq!((table[4], table[5], table[14], table[15]), (0.5, 0.5, -0.5, -1.0));
    /// assert_eq!(table.iter().sum::<f32>(), 20.0 - 0.5 * (1.0 + 1.0 + 3.0 + 4.0));
    /// # Ok::<(), gradclip::StepError>(())
    /// ```
    #[must_use]
    pub fn rows(mut self, rows: &'a [u32]) -> StepMut<'a> {
        self.operands.rows = Some(rows);
        self
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

    /// That the gradient has the parameter's own shape.
    pub(super) fn check_whole(&self, what: &str) -> Result<(), ClipError> {
        let Some(rows) = self.operands.rows else { return Ok(()) };
        let required = format!("a gradient in its parameter's own shape, {what}");
        Err(self.operands.wrong(required, format!("{} rows of it", rows.len())))
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
