//! The clip and the optimiser's step in one: parameters move where they lie.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::module::Module;
use burn::optim::{GradientsParams, OptimizerRecord};
use burn::tensor::wgpu::WgpuSetup;
use burn::tensor::{Device, Tensor};
use gradclip::{Clip, ClipperOptions, Group, Optimizer, ReadBackError, Report};

use crate::collect::{Collected, give_back};
use crate::engine::Engine;
use crate::error::{Error, Refused};
use crate::passes::{Counts, Rates};
use crate::record::{Saved, State};
use crate::shared::shares_engine;
use crate::take::take;
use crate::units::Parameter;

type Prepares = gradclip::Stepper;

/// Clips the gradients of a Burn model and moves its parameters, in one: gradients are read twice and not written,
/// parameters and the optimiser's state are read and written once, where they lie.
///
/// Takes the place of Burn's optimiser: SGD with and without momentum, Adam, AdamW, AMSGrad, Lion and whatever else
/// [`gradclip::Optimizer`] has, with these constants. Where a gradient is not finite and the policy is
/// [`NonFinite::Skip`](crate::NonFinite::Skip), nothing moves.
///
/// ```no_run
/// use burn::nn::{Linear, LinearConfig};
/// use burn::optim::GradientsParams;
/// use burn::tensor::{Device, Distribution, Tensor};
/// use gradclip_burn::{Adam, Clip, Stepper};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (device, setup) = Device::wgpu_options().init_with_setup()?;
/// let device = device.autodiff();
/// let optimizer = Stepper::new(&device, &setup, Clip::global_norm(1.0), Adam::adamw(1e-3))?;
///
/// let mut model: Linear = LinearConfig::new(4, 2).init(&device);
/// for _step in 0..100 {
///     let input = Tensor::<2>::random([8, 4], Distribution::Default, &device);
///     let loss = model.forward(input).powi_scalar(2).mean();
///     let grads = GradientsParams::from_grads(loss.backward(), &model);
///     model = optimizer.step(1e-3, model, grads)?;
/// }
/// optimizer.to_record()?.save("optimizer")?;
/// # Ok(())
/// # }
/// ```
///
/// Clones are the same stepper.
#[derive(Clone)]
pub struct Stepper {
    engine: Arc<Mutex<Engine<gradclip::Stepper>>>,
}

shares_engine!(Stepper);

impl Stepper {
    /// As [`Clipper::new`](crate::Clipper::new), with an optimiser. Its rate is the one of [`Stepper::step`].
    ///
    /// # Errors
    ///
    /// As [`Clipper::new`](crate::Clipper::new), and constants of the optimiser out of their range.
    pub fn new(
        device: &Device,
        setup: &WgpuSetup,
        clip: Clip,
        optimizer: impl Into<Optimizer>,
    ) -> Result<Stepper, Error> {
        Stepper::with_options(device, setup, clip, optimizer, ClipperOptions::default())
    }

    /// As [`Stepper::new`], with other tuning.
    ///
    /// # Errors
    ///
    /// As [`Stepper::new`] and [`gradclip::Clipper::with_options`]: an option out of its range.
    pub fn with_options(
        device: &Device,
        setup: &WgpuSetup,
        clip: Clip,
        optimizer: impl Into<Optimizer>,
        options: ClipperOptions,
    ) -> Result<Stepper, Error> {
        let optimizer = optimizer.into();
        optimizer.validate()?;
        let engine = Engine::new((device, setup), clip, optimizer, options)?;
        Ok(Stepper { engine: Arc::new(Mutex::new(engine)) })
    }

    /// Gives parameters rates of their own: a factor of the learning rate, and another weight decay. Asked whenever a
    /// pass is prepared.
    ///
    /// ```no_run
    /// # use gradclip_burn::{Adam, Clip, Rates, Stepper};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (device, setup) = burn::tensor::Device::wgpu_options().init_with_setup()?;
    /// // No decay of biases and scales.
    /// let optimizer = Stepper::new(&device, &setup, Clip::global_norm(1.0), Adam::adamw(1e-3))?
    ///     .rates(|parameter| Rates { weight_decay: (parameter.shape.len() < 2).then_some(0.0), ..Rates::default() });
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn rates(self, rates_of: impl Fn(&Parameter<'_>) -> Rates + Send + Sync + 'static) -> Stepper {
        self.lock().passes.set_rates(Box::new(rates_of));
        self
    }

    /// Clips the gradients that `grads` has of the model's parameters and moves those that have one. Gradients are left
    /// unclipped and dropped; what `grads` has of other models, too.
    ///
    /// Submits what Burn has queued on this thread, then the step; waits for neither. Parameters that something else
    /// sees (a clone of the model, a tensor taken from it) are copied first, so that it keeps its values.
    ///
    /// # Errors
    ///
    /// Tensors that lie elsewhere, parameters of another type than `f32`, other parameters than in the steps before, and whatever
    /// else [`Error`] says but for reports. [`Refused`] has model and gradients as they were, so that the step can be made by
    /// [`Clipper::clip`](crate::Clipper::clip) and an optimiser of Burn's.
    pub fn step<M: Module>(&self, lr: f64, model: M, grads: GradientsParams) -> Result<M, Box<Refused<M>>> {
        let mut engine = self.lock();
        // Before a memory is asked whether anybody else uses it.
        if let Err(error) = engine.flush() {
            return Err(Box::new(Refused { model, grads, error }));
        }
        let device = engine.memory_device.clone();
        let (model, mut collected, mut grads) =
            take(model, grads, &device, &mut engine.passes.counts.copied_parameters)?;
        match step(&mut engine, &mut collected, lr) {
            Ok(()) => Ok(model),
            Err(error) => {
                give_back(&mut grads, collected);
                Err(Box::new(Refused { model, grads, error }))
            }
        }
    }

    /// Changes the clip from the next step on, as [`Clipper::set_clip`](crate::Clipper::set_clip) does. The optimiser's state
    /// goes on, and so has the clip's history: steps fail after a clip that adapts otherwise, until this sets another.
    ///
    /// # Errors
    ///
    /// A clip that does not validate; nothing changes then.
    pub fn set_clip(&self, clip: Clip) -> Result<(), Error> {
        self.lock().set_clip(clip)
    }

    /// State of the optimiser, steps and what thresholds remember, as a record of Burn's: to be saved, or loaded by
    /// [`Stepper::load_record`]. Burn's own SGD, Adam, AdamW and Lion read it as their own.
    ///
    /// **Waits** until the device has run everything submitted.
    ///
    /// # Errors
    ///
    /// [`Error::NothingClipped`], or a device that was lost.
    pub fn to_record(&self) -> Result<OptimizerRecord, Error> {
        let engine = self.lock();
        let optimizer = engine.passes.asked;
        match &engine.restored {
            Some(saved) => saved.clone().into_record(&optimizer),
            None => saved(&engine)?.into_record(&optimizer),
        }
    }

    /// Goes on from a record at the next step that succeeds: one that fails keeps it. Takes records of
    /// [`Stepper::to_record`], and those of Burn's SGD, Adam, AdamW and Lion.
    ///
    /// # Errors
    ///
    /// A record of another optimiser. That it is of this model the next step finds out.
    pub fn load_record(&self, record: OptimizerRecord) -> Result<(), Error> {
        let mut engine = self.lock();
        engine.restored = Some(Saved::from_record(record, &engine.passes.asked)?);
        Ok(())
    }

    /// Bytes of the optimiser's state on the device.
    pub fn state_bytes(&self) -> u64 {
        let engine = self.lock();
        let moments = engine.passes.latest().map_or(&[][..], |stepper| stepper.moments());
        moments.iter().flatten().map(|moment| 4 * moment.elements).sum()
    }
}

fn step(engine: &mut Engine<gradclip::Stepper>, collected: &mut [Collected], lr: f64) -> Result<(), Error> {
    if collected.is_empty() {
        return Ok(());
    }
    for tensor in collected.iter_mut() {
        engine.make_usable(tensor, false)?;
    }
    engine.run(collected, |stepper, queue| Ok(stepper.set_lr(queue, lr)?))
}

/// Reads the state of the latest step.
fn saved(engine: &Engine<gradclip::Stepper>) -> Result<Saved, Error> {
    let stepper = engine.passes.latest().ok_or(Error::NothingClipped { what: "a record" })?;
    let device = engine.device.clone().inner();
    let copies = |moments: &[gradclip::Moment]| {
        let copy = |moment: &gradclip::Moment| {
            let tensor = Tensor::<1>::zeros([moment.elements as usize], &device);
            engine.copy_of((&moment.buffer, moment.offset), tensor, "moment")
        };
        moments.iter().map(copy).collect::<Result<Vec<_>, Error>>()
    };
    // All on their way before the first is waited for.
    let copies = stepper.moments().iter().map(|own| copies(own)).collect::<Result<Vec<_>, Error>>()?;
    let history = engine.save_history()?.wait()?;
    let mut states = std::collections::BTreeMap::new();
    for (place, copies) in engine.passes.places().iter().zip(copies) {
        let shape = place.shape.iter().map(|&n| n as usize).collect();
        let moments = copies.into_iter().map(|copy| copy.into_data().into_parts().0).collect();
        states.insert(place.id, State { path: Some(place.path.clone()), shape, moments });
    }
    Ok(Saved { history, states })
}
