//! One line between `backward` and `optimizer.step`.

use burn::backend::cubecl::Device as CubeDevice;
use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::wgpu::WgpuSetup;
use burn::tensor::{Device, Tensor};
use gradclip::{
    Clip, ClipperOptions, Group, History, Pass, ReadBack, ReadBackError, Report, Rule, Telemetry, wgpu,
};

use crate::collect::{Collected, Location, give_back, take};
use crate::error::Error;
use crate::memory::{Owner, copied, from_memory, into_memory, is_dense, is_ours, locate};
use crate::passes::{Counts, Passes};

/// Placements whose passes are kept.
const MOST_PASSES: usize = 8;

/// Clips the gradients of Burn models on one wgpu device.
///
/// Nothing here waits for the device but [`Clipper::report`]. A clipper counts the steps, and its adaptive
/// thresholds remember the norms, of the one model it is used with; use one clipper a model.
pub struct Clipper {
    device: Device,
    memory_device: CubeDevice,
    wgpu_device: wgpu::Device,
    queue: wgpu::Queue,
    passes: Passes,
    telemetry: Option<Telemetry>,
    /// Reports that may be on their way at once.
    most_reports: usize,
    dropped: u64,
    /// To go on from at the next clip that succeeds.
    restored: Option<History>,
}

impl std::fmt::Debug for Clipper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Clipper");
        shown.field("device", &self.device).field("clip", &self.passes.clip).finish_non_exhaustive()
    }
}

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
        clip.validate()?;
        let probe = Tensor::<1>::zeros([1], &device.clone().inner());
        let not_wgpu = |given: String| Error::NotWgpu { given: format!("{device:?} ({given})") };
        let probe = into_memory(probe).map_err(|refused| not_wgpu(refused.1))?;
        locate(&probe, Owner { parameter: "", what: "" }).map_err(|error| not_wgpu(error.to_string()))?;
        // One place more: `report` finds one free however many reports nobody takes. None is refused.
        let most_reports = options.read_backs;
        let options = options.read_backs(if most_reports == 0 { 0 } else { most_reports.saturating_add(1) });
        let clipper = gradclip::Clipper::with_options(&setup.device, options)?;
        Ok(Clipper {
            device: device.clone(),
            memory_device: probe.device.clone(),
            wgpu_device: setup.device.clone(),
            queue: setup.queue.clone(),
            passes: Passes::new(clipper, clip, MOST_PASSES),
            telemetry: Some(Telemetry::default()),
            most_reports,
            dropped: 0,
            restored: None,
        })
    }

    /// Puts parameters into groups by their path in the model, such as `layers.0.weight`. Asked whenever a
    /// pass is prepared, not at every step: the answer should depend on the path alone.
    ///
    /// [`Group::excluded`] leaves parameters out of every norm, in every scope: they are measured and unscaled,
    /// never clipped. A group with a threshold has it under [`Scope::Group`](crate::Scope::Group), where it shares
    /// one norm, and for each tensor or unit under the scopes of these; [`Clipper::clip`] refuses it where tensors
    /// of several groups would share a norm.
    ///
    /// ```no_run
    /// # use gradclip_burn::{Clip, Clipper, Group};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (device, setup) = burn::tensor::Device::wgpu_options().init_with_setup()?;
    /// let clipper = Clipper::new(&device, &setup, Clip::global_norm(1.0))?
    ///     .groups(|path| path.ends_with("bias").then(|| Group::excluded("biases")));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn groups(mut self, group_of: impl Fn(&str) -> Option<Group> + Send + Sync + 'static) -> Clipper {
        self.passes.set_groups(Box::new(group_of));
        self
    }

    /// Sends no reports to the host: [`Clipper::poll`] gives none then. Saves a copy of a few bytes a
    /// tensor at every step.
    #[must_use]
    pub fn without_telemetry(self) -> Clipper {
        Clipper { telemetry: None, ..self }
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
    pub fn clip<M: Module>(&mut self, model: &M, grads: &mut GradientsParams) -> Result<(), Error> {
        let parameters = matches!(self.passes.clip.rule, Rule::Agc { .. });
        let mut collected = take(model, grads, &self.memory_device, parameters)?;
        let clipped = self.clip_collected(&mut collected);
        give_back(grads, collected);
        clipped
    }

    fn clip_collected(&mut self, collected: &mut [Collected]) -> Result<(), Error> {
        let Some(client) = collected.first().map(|first| first.gradient.client.clone()) else {
            return Ok(());
        };
        let flush = || client.flush().map_err(|error| Error::Flush { message: error.to_string() });
        // Before memory is asked whether anybody uses it: see `is_ours`.
        flush()?;
        for tensor in collected.iter_mut() {
            self.make_writable(tensor)?;
        }
        // Held until the submit: Burn neither moves nor reuses what lies there.
        let located = collected.iter().map(Location::find).collect::<Result<Vec<_>, _>>()?;
        let places =
            collected.iter().zip(&located).map(|(tensor, location)| location.place(tensor)).collect();
        let restored = self.restored.as_ref().map(|history| (history, &self.queue));
        let pass = self.passes.pass_for(places, restored)?;
        let mut encoder = encoder(&self.wgpu_device);
        pass.record(&mut encoder);
        if let Some(telemetry) = &mut self.telemetry {
            if telemetry.len() < self.most_reports {
                telemetry.record(pass, &mut encoder);
            } else {
                self.dropped += 1;
            }
        }
        // Burn's commands first: the queue runs in the order of submits, and what Burn does with the
        // gradients from here on it submits after this.
        flush()?;
        self.queue.submit([encoder.finish()]);
        self.restored = None;
        drop(located);
        Ok(())
    }

    /// Replaces memory that others see, or that is not dense, by a copy.
    fn make_writable(&mut self, tensor: &mut Collected) -> Result<(), Error> {
        let Collected { path, gradient, parameter, .. } = tensor;
        if !(is_dense(gradient) && is_ours(gradient)) {
            *gradient = copied(gradient, Collected::gradient_of(path))?;
            self.passes.counts.copied += 1;
        }
        if let Some((value, _)) = parameter
            && !is_dense(value)
        {
            *value = copied(value, Collected::value_of(path))?;
        }
        Ok(())
    }

    /// Changes the clip from the next call on. Steps are counted on, and the history of an adaptive
    /// threshold and the loss scale go on, where the new clip adapts in the same way and in the same scope, and
    /// scales the loss as the old one or does neither; else all begin anew. Costs a preparation;
    /// [`Clipper::set_threshold`] does not.
    ///
    /// # Errors
    ///
    /// A clip that does not validate; nothing changes then.
    pub fn set_clip(&mut self, clip: Clip) -> Result<(), Error> {
        clip.validate()?;
        self.passes.set_clip(clip);
        Ok(())
    }

    /// Changes the clip's threshold from the next call on. Groups with a threshold of their own keep it,
    /// excluded ones stay excluded; with [`Clipper::groups`] it costs a preparation.
    ///
    /// # Errors
    ///
    /// One that is negative or NaN; nothing changes then.
    pub fn set_threshold(&mut self, threshold: f32) -> Result<(), Error> {
        let mut clip = self.passes.clip;
        clip.threshold = threshold.into();
        if self.passes.groups.is_some() {
            return self.set_clip(clip);
        }
        clip.validate()?;
        let queue = &self.queue;
        self.passes.current().try_for_each(|pass| pass.set_threshold(queue, threshold))?;
        self.passes.clip = clip;
        Ok(())
    }

    /// Changes the factor that gradients are multiplied by first, from the next call on.
    ///
    /// # Errors
    ///
    /// One that is not positive and finite, and any but 1 where `f16` gradients were clipped and
    /// [`Clip::lossy_unscale`] does not allow it; nothing changes then.
    pub fn set_unscale(&mut self, unscale: f32) -> Result<(), Error> {
        let clip = self.passes.clip.unscale(unscale);
        clip.validate()?;
        let queue = &self.queue;
        let set = self.passes.current().try_for_each(|pass| pass.set_unscale(queue, unscale));
        if let Err(error) = set {
            // Passes of other gradients may have taken it before one refused.
            self.passes.outdate();
            return Err(error.into());
        }
        self.passes.clip = clip;
        Ok(())
    }

    /// The next report that has arrived, of a step a few before the latest: never waits. Where reports are
    /// not taken, newer ones are dropped.
    ///
    /// # Errors
    ///
    /// A device that was lost.
    pub fn poll(&mut self) -> Option<Result<Report, ReadBackError>> {
        self.telemetry.as_mut()?.poll()
    }

    /// How many reports were dropped because too many were on their way.
    pub fn dropped(&self) -> u64 {
        self.dropped + self.telemetry.as_ref().map_or(0, Telemetry::dropped)
    }

    /// What the latest clip did. **Waits** until the device has run everything submitted, a training step
    /// as a rule: for tests and the end of an epoch; [`Clipper::poll`] is for every step.
    ///
    /// # Errors
    ///
    /// [`Error::NothingClipped`], or a device that was lost.
    pub fn report(&self) -> Result<Report, Error> {
        let pass = self.passes.latest().ok_or(Error::NothingClipped { what: "a report" })?;
        let mut encoder = encoder(&self.wgpu_device);
        let report = pass.read_back(&mut encoder)?;
        self.queue.submit([encoder.finish()]);
        Ok(report.wait()?)
    }

    /// What the thresholds remember, on its way to the host, for a checkpoint: submits a copy and waits for
    /// nothing, [`ReadBack::wait`] does.
    ///
    /// # Errors
    ///
    /// [`Error::NothingClipped`], or memory that ran out.
    pub fn save_history(&self) -> Result<ReadBack<History>, Error> {
        let pass = self.passes.latest().ok_or(Error::NothingClipped { what: "a history" })?;
        let mut encoder = encoder(&self.wgpu_device);
        let saved = pass.save_history(&mut encoder)?;
        self.queue.submit([encoder.finish()]);
        Ok(saved)
    }

    /// Goes on from a saved history at the next clip that succeeds: one that fails, whatever for, keeps it. Clips
    /// fail where it is that of another adaptive threshold, or of other gradients, until
    /// [`Clipper::set_clip`] gives the clip it belongs to, or this another history:
    /// [`History::default`] begins anew.
    pub fn restore_history(&mut self, history: History) {
        self.restored = Some(history);
    }

    /// The pass of the latest clip, with its results on the device.
    pub fn pass(&self) -> Option<&Pass> {
        self.passes.latest()
    }

    /// The factor of a clip with [`Clip::loss_scale`], as a tensor that follows it on the device: multiply
    /// the loss by it before `backward`. Ask for it again at every step.
    ///
    /// # Errors
    ///
    /// As [`Clipper::clip`] where Burn cannot say where the new tensor lies.
    pub fn loss_scale(&self) -> Result<Tensor<1>, Error> {
        // What the next clip will divide by: it begins with a restored history, or where the latest one ended.
        let initial = self.restored.clone().unwrap_or_default().loss_scale(&self.passes.clip);
        let tensor = Tensor::<1>::from_floats([initial], &self.device);
        let latest = self.passes.remembering().filter(|_| self.restored.is_none());
        let Some(pass) = latest else { return Ok(tensor) };
        let owner = Owner { parameter: "", what: "loss scale" };
        let not_wgpu = |given| Error::NotWgpu { given };
        let memory = into_memory(tensor.inner()).map_err(|refused| not_wgpu(refused.1))?;
        let located = locate(&memory, owner)?;
        let mut encoder = encoder(&self.wgpu_device);
        encoder.copy_buffer_to_buffer(pass.progress(), 0, &located.buffer, located.offset, 4);
        memory.client.flush().map_err(|error| Error::Flush { message: error.to_string() })?;
        self.queue.submit([encoder.finish()]);
        let tensor = from_memory(memory);
        Ok(if self.device.is_autodiff() { Tensor::from_inner(tensor) } else { tensor })
    }

    /// How often passes were prepared and found, and gradients copied.
    pub fn counts(&self) -> Counts {
        self.passes.counts
    }
}

fn encoder(device: &wgpu::Device) -> wgpu::CommandEncoder {
    device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("gradclip-burn") })
}
