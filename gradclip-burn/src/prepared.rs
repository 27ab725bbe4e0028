//! What is prepared for one placement of gradients: a clip in place, or a clip that ends in a step.

use gradclip::{Clip, Grad, History, Optimizer, Pass, PrepareError, Stepper, wgpu};

use crate::error::Error;
use crate::record::Saved;

/// Recorded at every step.
pub(crate) trait Prepared: Sized {
    /// What is asked besides the clip.
    type Asked: Copy;
    /// What a run goes on from.
    type Saved;
    /// Whether one goes on without what another one has: the optimiser's state has to go on.
    const MAY_BEGIN_ANEW: bool;

    /// With the memory of `previous`, where there is one.
    fn prepare(
        clipper: &gradclip::Clipper,
        previous: Option<&Self>,
        grads: &[Grad],
        clip: &Clip,
        asked: Self::Asked,
    ) -> Result<Self, PrepareError>;

    fn pass(&self) -> &Pass;

    fn record(&self, encoder: &mut wgpu::CommandEncoder);

    /// Goes on from what was saved, for the parameters of these paths.
    fn restore(&self, queue: &wgpu::Queue, saved: &Self::Saved, ids: &[u64]) -> Result<(), Error>;

    fn history(saved: &Self::Saved) -> &History;
}

impl Prepared for Pass {
    type Asked = ();
    type Saved = History;
    const MAY_BEGIN_ANEW: bool = true;

    fn prepare(
        clipper: &gradclip::Clipper,
        previous: Option<&Pass>,
        grads: &[Grad],
        clip: &Clip,
        (): (),
    ) -> Result<Pass, PrepareError> {
        match previous {
            None => clipper.prepare(grads, clip),
            Some(previous) => clipper.prepare_after(previous, grads, clip),
        }
    }

    fn pass(&self) -> &Pass {
        self
    }

    fn record(&self, encoder: &mut wgpu::CommandEncoder) {
        Pass::record(self, encoder);
    }

    fn restore(&self, queue: &wgpu::Queue, saved: &History, _ids: &[u64]) -> Result<(), Error> {
        Ok(self.restore_history(queue, saved)?)
    }

    fn history(saved: &History) -> &History {
        saved
    }
}

impl Prepared for Stepper {
    type Asked = Optimizer;
    type Saved = Saved;
    const MAY_BEGIN_ANEW: bool = false;

    fn prepare(
        clipper: &gradclip::Clipper,
        previous: Option<&Stepper>,
        grads: &[Grad],
        clip: &Clip,
        optimizer: Optimizer,
    ) -> Result<Stepper, PrepareError> {
        match previous {
            None => clipper.prepare_step(grads, clip, optimizer),
            Some(previous) => clipper.prepare_step_after(previous, grads, clip, optimizer),
        }
    }

    fn pass(&self) -> &Pass {
        Stepper::pass(self)
    }

    fn record(&self, encoder: &mut wgpu::CommandEncoder) {
        self.record_step(encoder);
    }

    fn restore(&self, queue: &wgpu::Queue, saved: &Saved, ids: &[u64]) -> Result<(), Error> {
        saved.check(self.moments(), ids)?;
        self.restore_history(queue, &saved.history)?;
        for (moments, id) in self.moments().iter().zip(ids) {
            let Some(state) = saved.states.get(id) else { continue };
            for (moment, values) in moments.iter().zip(&state.moments) {
                queue.write_buffer(&moment.buffer, moment.offset, values);
            }
        }
        Ok(())
    }

    fn history(saved: &Saved) -> &History {
        &saved.history
    }
}
