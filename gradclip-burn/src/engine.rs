//! What a clip in place and a clip with a step have in common: one call from gradients to submitted commands, and
//! what comes back.

use burn::tensor::wgpu::WgpuSetup;
use burn::tensor::{Device, Tensor};
use gradclip::{Clip, ClipperOptions, History, ReadBack, ReadBackError, Report, Telemetry, wgpu};

use crate::collect::{Collected, places, wanted};
use crate::error::Error;
use crate::memory::{
    Client, MemoryDevice, Owner, copied, flush, from_memory, into_memory, is_dense, is_ours, locate,
    locate_all,
};
use crate::passes::Passes;
use crate::prepared::Prepared;

/// Placements that are kept prepared.
const MOST_PASSES: usize = 8;

pub(crate) struct Engine<P: Prepared> {
    pub(crate) device: Device,
    pub(crate) memory_device: MemoryDevice,
    client: Client,
    wgpu_device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    pub(crate) passes: Passes<P>,
    pub(crate) telemetry: Option<Telemetry>,
    /// Reports that may be on their way at once.
    most_reports: usize,
    dropped: u64,
    /// To go on from at the next call that succeeds.
    pub(crate) restored: Option<P::Saved>,
}

impl<P: Prepared> Engine<P> {
    pub(crate) fn new(
        (device, setup): (&Device, &WgpuSetup),
        clip: Clip,
        asked: P::Asked,
        options: ClipperOptions,
    ) -> Result<Engine<P>, Error> {
        clip.validate()?;
        let probe = Tensor::<1>::zeros([1], &device.clone().inner());
        let not_wgpu = |given: String| Error::NotWgpu { given: format!("{device:?} ({given})") };
        let probe = into_memory(probe).map_err(|refused| not_wgpu(refused.1))?;
        locate(&probe, Owner { parameter: "", what: "" }).map_err(|error| not_wgpu(error.to_string()))?;
        // One place more: `report` finds one free however many reports nobody takes. None is refused.
        let most_reports = options.read_backs;
        let options = options.read_backs(if most_reports == 0 { 0 } else { most_reports.saturating_add(1) });
        let clipper = gradclip::Clipper::with_options(&setup.device, options)?;
        Ok(Engine {
            device: device.clone(),
            memory_device: probe.device.clone(),
            client: probe.client.clone(),
            wgpu_device: setup.device.clone(),
            queue: setup.queue.clone(),
            passes: Passes::new(clipper, clip, asked, MOST_PASSES),
            telemetry: Some(Telemetry::default()),
            most_reports,
            dropped: 0,
            restored: None,
        })
    }

    /// Has Burn submit what this thread has queued: before memory is asked whether anybody uses it (see [`is_ours`]),
    /// and before commands of ours.
    pub(crate) fn flush(&self) -> Result<(), Error> {
        flush(&self.client)
    }

    /// Replaces memory that is not dense by a copy, and gradients that others see where they are written.
    pub(crate) fn make_usable(&mut self, tensor: &mut Collected, written: bool) -> Result<(), Error> {
        let Collected { path, gradient, parameter, .. } = tensor;
        if !is_dense(gradient) || (written && !is_ours(gradient)) {
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

    /// Records and submits what is prepared for these gradients, or prepares it. `set` is called before it is recorded.
    pub(crate) fn run(
        &mut self,
        collected: &[Collected],
        set: impl FnOnce(&P, &wgpu::Queue) -> Result<(), Error>,
    ) -> Result<(), Error> {
        // Held until the submit: Burn neither moves nor reuses what lies there.
        let located = locate_all(&self.client, wanted(collected))?;
        let places = places(collected, &located);
        let restored = self.restored.as_ref().map(|saved| (saved, &self.queue));
        let pass = self.passes.pass_for(places, restored)?;
        set(pass, &self.queue)?;
        let mut encoder = encoder(&self.wgpu_device);
        pass.record(&mut encoder);
        if let Some(telemetry) = &mut self.telemetry {
            if telemetry.len() < self.most_reports {
                telemetry.record(pass.pass(), &mut encoder);
            } else {
                self.dropped += 1;
            }
        }
        // Burn's commands first: the queue runs in the order of submits, and what Burn does with the
        // tensors from here on it submits after this.
        flush(&self.client)?;
        self.queue.submit([encoder.finish()]);
        self.restored = None;
        drop(located);
        Ok(())
    }

    pub(crate) fn set_clip(&mut self, clip: Clip) -> Result<(), Error> {
        clip.validate()?;
        self.passes.set_clip(clip);
        Ok(())
    }

    pub(crate) fn set_threshold(&mut self, threshold: f32) -> Result<(), Error> {
        let mut clip = self.passes.clip;
        clip.threshold = threshold.into();
        if self.passes.groups.is_some() {
            return self.set_clip(clip);
        }
        clip.validate()?;
        let queue = &self.queue;
        self.passes.current().try_for_each(|pass| pass.pass().set_threshold(queue, threshold))?;
        self.passes.clip = clip;
        Ok(())
    }

    pub(crate) fn set_unscale(&mut self, unscale: f32) -> Result<(), Error> {
        let clip = self.passes.clip.unscale(unscale);
        clip.validate()?;
        let queue = &self.queue;
        let set = self.passes.current().try_for_each(|pass| pass.pass().set_unscale(queue, unscale));
        if let Err(error) = set {
            // Passes of other gradients may have taken it before one refused.
            self.passes.outdate();
            return Err(error.into());
        }
        self.passes.clip = clip;
        Ok(())
    }

    pub(crate) fn poll(&mut self) -> Option<Result<Report, ReadBackError>> {
        self.telemetry.as_mut()?.poll()
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.dropped + self.telemetry.as_ref().map_or(0, Telemetry::dropped)
    }

    /// The report of the latest call, on its way to the host.
    pub(crate) fn report(&self) -> Result<ReadBack, Error> {
        let pass = self.passes.latest().ok_or(Error::NothingClipped { what: "a report" })?;
        let mut encoder = encoder(&self.wgpu_device);
        let report = pass.pass().read_back(&mut encoder)?;
        self.queue.submit([encoder.finish()]);
        Ok(report)
    }

    pub(crate) fn save_history(&self) -> Result<ReadBack<History>, Error> {
        let pass = self.passes.latest().ok_or(Error::NothingClipped { what: "a history" })?;
        let mut encoder = encoder(&self.wgpu_device);
        let saved = pass.pass().save_history(&mut encoder)?;
        self.queue.submit([encoder.finish()]);
        Ok(saved)
    }

    pub(crate) fn loss_scale(&self) -> Result<Tensor<1>, Error> {
        // What the next clip will divide by: it begins with a restored history, or where the latest one ended.
        let initial = match &self.restored {
            Some(saved) => P::history(saved).loss_scale(&self.passes.clip),
            None => History::default().loss_scale(&self.passes.clip),
        };
        let tensor = Tensor::<1>::from_floats([initial], &self.device);
        let latest = self.passes.remembering().filter(|_| self.restored.is_none());
        let Some(pass) = latest else { return Ok(tensor) };
        let copied = self.copy_of((pass.pass().progress(), 0), tensor.inner(), "loss scale")?;
        Ok(if self.device.is_autodiff() { Tensor::from_inner(copied) } else { copied })
    }

    /// What lies in a buffer, as a tensor of Burn's, in place of `tensor`: submits a copy.
    pub(crate) fn copy_of<const D: usize>(
        &self,
        (buffer, offset): (&wgpu::Buffer, u64),
        tensor: Tensor<D>,
        what: &'static str,
    ) -> Result<Tensor<D>, Error> {
        let bytes = 4 * tensor.shape().num_elements() as u64;
        let not_wgpu = |given| Error::NotWgpu { given };
        let memory = into_memory(tensor).map_err(|refused| not_wgpu(refused.1))?;
        let located = locate(&memory, Owner { parameter: "", what })?;
        let mut encoder = encoder(&self.wgpu_device);
        encoder.copy_buffer_to_buffer(buffer, offset, &located.buffer, located.offset, bytes);
        flush(&memory.client)?;
        self.queue.submit([encoder.finish()]);
        Ok(from_memory(memory))
    }
}

fn encoder(device: &wgpu::Device) -> wgpu::CommandEncoder {
    device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("gradclip-burn") })
}
