//! One line between `backward` and `optimizer.step`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::wgpu::WgpuSetup;
use burn::tensor::{Device, Tensor};
use gradclip::{Clip, ClipperOptions, Group, History, Pass, ReadBack, ReadBackError, Report, Rule, wgpu};

use crate::collect::{Collected, give_back, take};
use crate::engine::Engine;
use crate::error::Error;
use crate::passes::Counts;
use crate::shared::shares_engine;
use crate::units::Parameter;

type Prepares = Pass;

/// Clips the gradients of Burn models on one wgpu device.
///
/// Nothing here waits for the device but [`Clipper::report`]. A clipper counts the steps, and its adaptive
/// thresholds remember the norms, of the one model it is used with; use one clipper a model. Clones are the same
/// clipper: one may stand in a model's `TrainStep` and another be asked for reports, from whatever thread.
#[derive(Clone)]
pub struct Clipper {
    engine: Arc<Mutex<Engine<Pass>>>,
}

shares_engine!(Clipper);

impl Clipper {
    /// For a device of Burn's and the wgpu handles that it runs on: both come from
    /// [`WgpuOptions::init_with_setup`](burn::tensor::wgpu::WgpuOptions::init_with_setup); or the handles
    /// are yours and the device is what Burn made of them. With handles of another device, `clip` fails;
    /// with those of another `wgpu::Instance`, wgpu panics there.
    ///
    /// # Errors
    ///
    /// A device that is not on wgpu or has too small limits, a clip that does not validate.
    pub fn new(device: &Device, setup: &WgpuSetup, clip: Clip) -> Result<Clipper, Error> {
        Clipper::with_options(device, setup, clip, ClipperOptions::default())
    }

    /// As [`Clipper::new`], with other tuning.
    ///
    /// # Errors
    ///
    /// As [`Clipper::new`] and [`gradclip::Clipper::with_options`]: an option out of its range.
    pub fn with_options(
        device: &Device,
        setup: &WgpuSetup,
        clip: Clip,
        options: ClipperOptions,
    ) -> Result<Clipper, Error> {
        let engine = Engine::new((device, setup), clip, (), options)?;
        Ok(Clipper { engine: Arc::new(Mutex::new(engine)) })
    }

    /// Clips the gradients that `grads` has of the parameters of `model`, in place. Parameters without a
    /// gradient are left out, and what `grads` has of other models is left alone.
    ///
    /// Submits what Burn has queued on this thread, then the clip; waits for neither.
    ///
    /// # Errors
    ///
    /// Whatever [`Error`] says but for reports. Every gradient is still registered then, with the values
    /// it had, no step is counted, and a history to be restored is kept for the next call.
    pub fn clip<M: Module>(&self, model: &M, grads: &mut GradientsParams) -> Result<(), Error> {
        let mut engine = self.lock();
        let parameters = matches!(engine.passes.clip.rule, Rule::Agc { .. });
        let mut collected = take(model, grads, &engine.memory_device, parameters)?;
        let clipped = clip(&mut engine, &mut collected);
        give_back(grads, collected);
        clipped
    }

    /// Changes the clip from the next call on. Steps are counted on, and the history of an adaptive
    /// threshold and the loss scale go on, where the new clip adapts in the same way and in the same scope, and
    /// scales the loss as the old one or does neither; else all begin anew. Costs a preparation;
    /// [`Clipper::set_threshold`] does not.
    ///
    /// # Errors
    ///
    /// A clip that does not validate; nothing changes then.
    pub fn set_clip(&self, clip: Clip) -> Result<(), Error> {
        self.lock().set_clip(clip)
    }

    /// What the thresholds remember, on its way to the host, for a checkpoint: submits a copy and waits for
    /// nothing, [`ReadBack::wait`] does.
    ///
    /// # Errors
    ///
    /// [`Error::NothingClipped`], or memory that ran out.
    pub fn save_history(&self) -> Result<ReadBack<History>, Error> {
        self.lock().save_history()
    }

    /// Goes on from a saved history at the next clip that succeeds: one that fails, whatever for, keeps it. Clips
    /// fail where it is that of another adaptive threshold, or of other gradients, until
    /// [`Clipper::set_clip`] gives the clip it belongs to, or this another history:
    /// [`History::default`] begins anew.
    pub fn restore_history(&self, history: History) {
        self.lock().restored = Some(history);
    }

    /// The results of the latest clip on the device, for a shader of yours: [`gradclip::Pass::outcomes`].
    pub fn outcomes(&self) -> Option<wgpu::Buffer> {
        self.lock().passes.latest().map(|pass| pass.outcomes().clone())
    }
}

fn clip(engine: &mut Engine<Pass>, collected: &mut [Collected]) -> Result<(), Error> {
    if collected.is_empty() {
        return Ok(());
    }
    engine.flush()?;
    for tensor in collected.iter_mut() {
        engine.make_usable(tensor, true)?;
    }
    engine.run(collected, |_, _| Ok(()))
}
