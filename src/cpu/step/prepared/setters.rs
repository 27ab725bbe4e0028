//! Changes a prepared step, and tells what it did.

use crate::error::{ClipError, OptimizerError};
use crate::history::History;
use crate::optimizer::{Optimizer, check_lr_scales};
use crate::report::Report;

use super::{Moments, PreparedStep};

impl PreparedStep {
    /// The optimiser as it is set.
    pub fn optimizer(&self) -> Optimizer {
        self.optimizer
    }

    /// Changes the learning rate from the next step on.
    ///
    /// # Errors
    ///
    /// [`OptimizerError::Constant`] for one that is negative, infinite or NaN; nothing changes then.
    pub fn set_lr(&mut self, lr: f64) -> Result<(), OptimizerError> {
        self.set_optimizer(self.optimizer.with_lr(lr))
    }

    /// Changes the factors of the learning rate, one a tensor in the order prepared, from the next step on: as
    /// [`Stepper::set_lr_scales`](crate::Stepper::set_lr_scales).
    ///
    /// # Errors
    ///
    /// [`OptimizerError::Constant`] for another number of them, or one that is negative, infinite or NaN; nothing changes then.
    pub fn set_lr_scales(&mut self, scales: &[f64]) -> Result<(), OptimizerError> {
        check_lr_scales(scales, self.own.len())?;
        self.own.iter_mut().zip(scales).for_each(|(own, scale)| own.lr_scale = *scale);
        Ok(())
    }

    /// Changes the optimiser's constants from the next step on.
    ///
    /// # Errors
    ///
    /// Constants out of their range, and [`OptimizerError::Combination`] for an optimiser that needs another state; nothing
    /// changes then.
    pub fn set_optimizer(&mut self, optimizer: impl Into<Optimizer>) -> Result<(), OptimizerError> {
        let optimizer = optimizer.into();
        optimizer.validate()?;
        optimizer.goes_on_from(&self.optimizer)?;
        self.optimizer = optimizer;
        Ok(())
    }

    /// The optimiser's state.
    pub fn moments(&self) -> &Moments {
        &self.moments
    }

    /// Goes on from another state, of a step that was saved say; the default begins anew.
    ///
    /// # Errors
    ///
    /// [`ClipError::State`] for the state of other tensors or of another optimiser; nothing changes then.
    pub fn restore_moments(&mut self, mut moments: Moments) -> Result<(), ClipError> {
        moments.fit(self.own.iter().map(|own| own.elements), self.optimizer.moments())?;
        self.moments = moments;
        Ok(())
    }

    /// As [`Prepared::set_threshold`](crate::cpu::Prepared::set_threshold).
    ///
    /// # Errors
    ///
    /// [`ClipError::Threshold`] for one that is negative or NaN; nothing changes then.
    pub fn set_threshold(&mut self, threshold: impl Into<f64>) -> Result<(), ClipError> {
        self.kept.set_threshold(threshold.into())
    }

    /// Changes the factor that gradients are multiplied by first, from the next step on.
    ///
    /// # Errors
    ///
    /// [`ClipError::Unscale`] for one that is not positive and finite; nothing changes then.
    pub fn set_unscale(&mut self, unscale: f32) -> Result<(), ClipError> {
        self.kept.clip = self.kept.with_unscale(unscale)?;
        Ok(())
    }

    /// Sets the loss of the next step: as [`History::set_loss`].
    pub fn set_loss(&mut self, loss: f32) {
        self.kept.history.set_loss(loss);
    }

    /// Sets the norm of the next step: as [`History::set_norm`].
    pub fn set_norm(&mut self, norm: f32) {
        self.kept.history.set_norm(norm);
    }

    /// What thresholds, the loss scale and the count of steps remember.
    pub fn history(&self) -> &History {
        &self.kept.history
    }

    /// Goes on from another history, of a step that was saved say.
    ///
    /// # Errors
    ///
    /// [`ClipError::State`] for the history of another clip; nothing changes then.
    pub fn restore_history(&mut self, history: History) -> Result<(), ClipError> {
        self.kept.restore_history(history)
    }

    /// The norm of the last step's gradients before they were clipped: as [`Prepared::norm`](crate::cpu::Prepared::norm).
    pub fn norm(&self) -> Option<f64> {
        self.kept.whole().map(|segment| segment.norm)
    }

    /// The coefficient of the last step, as [`PreparedStep::norm`].
    pub fn coefficient(&self) -> Option<f64> {
        self.kept.whole().map(|segment| segment.coefficient)
    }

    /// What the last step measured and did; none before the first. This allocates.
    pub fn report(&self) -> Option<Report> {
        self.lr.map(|lr| self.kept.report(Some(lr)))
    }
}
