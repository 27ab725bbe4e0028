//! Changes the constants of a step.

use std::sync::{MutexGuard, PoisonError};

use crate::clip::LossScale;
use crate::error::OptimizerError;
use crate::optimizer::{Optimizer, check_lr_scales};

use super::Stepper;
use super::current::Current;

impl Stepper {
    /// The optimiser as it is set.
    pub fn optimizer(&self) -> Optimizer {
        self.current().optimizer
    }

    /// Changes the learning rate from the next submit of `queue` on.
    ///
    /// # Errors
    ///
    /// [`OptimizerError::Constant`] for one that is negative, infinite or NaN; nothing changes then.
    pub fn set_lr(&self, queue: &wgpu::Queue, lr: f64) -> Result<(), OptimizerError> {
        let mut current = self.current();
        let optimizer = current.optimizer.with_lr(lr);
        optimizer.validate()?;
        self.write_hyper(queue, &optimizer);
        current.optimizer = optimizer;
        Ok(())
    }

    /// Changes the factors of the learning rate ([`Grad::lr_scale`](crate::Grad::lr_scale)), one a tensor in the order of the gradients, from the next submit of
    /// `queue` on: parameter groups whose rates follow schedules of their own have the quotient of theirs and the first.
    ///
    /// # Errors
    ///
    /// [`OptimizerError::Constant`] for another number of them, or one that is negative, infinite or NaN; nothing changes then.
    pub fn set_lr_scales(&self, queue: &wgpu::Queue, scales: &[f64]) -> Result<(), OptimizerError> {
        let mut current = self.current();
        check_lr_scales(scales, current.tensors.len())?;
        current.tensors.iter_mut().zip(scales).for_each(|(tensor, scale)| tensor.lr_scale = *scale as f32);
        queue.write_buffer(&self.rates, 0, bytemuck::cast_slice(&current.tensors));
        Ok(())
    }

    /// Changes the optimiser's constants from the next submit of `queue` on.
    ///
    /// # Errors
    ///
    /// Constants out of their range, and [`OptimizerError::Combination`] for an optimiser that needs
    /// another state, or limits updates where none of this step was prepared to be; nothing changes then.
    pub fn set_optimizer(
        &self,
        queue: &wgpu::Queue,
        optimizer: impl Into<Optimizer>,
    ) -> Result<(), OptimizerError> {
        let optimizer = optimizer.into();
        optimizer.validate()?;
        let mut current = self.current();
        optimizer.goes_on_from(&current.optimizer)?;
        if optimizer.has_ratios() && !self.has_ratios {
            let (what, required) = ("a limit of updates", "a step that was prepared with one");
            return Err(OptimizerError::Combination { what, required });
        }
        for (tensor, own) in current.tensors.iter_mut().zip(&self.own_decay) {
            tensor.weight_decay = own.unwrap_or(optimizer.weight_decay()) as f32;
        }
        queue.write_buffer(&self.rates, 0, bytemuck::cast_slice(&current.tensors));
        self.write_hyper(queue, &optimizer);
        current.optimizer = optimizer;
        Ok(())
    }

    fn write_hyper(&self, queue: &wgpu::Queue, optimizer: &Optimizer) {
        let hyper = LossScale::add_to(self.pass.clip().loss_scale, optimizer.record());
        queue.write_buffer(&self.hyper, 0, bytemuck::bytes_of(&hyper));
    }

    /// Setters hold it until the device's copy is on its way.
    fn current(&self) -> MutexGuard<'_, Current> {
        // Nothing that is done while the lock is held can panic half way.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
