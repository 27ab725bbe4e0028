//! Two runs side by side, from the same parameters over the same text: with a clip, and without.

use std::cell::RefCell;

use gradclip::{Clip, Clipper, ClipperOptions, NonFinite, Scope, wgpu};

use crate::error::WebError;
use crate::gpu::Gpu;
use crate::model::Model;
use crate::run::{MOST_STEPS, Run, Saved, Step};
use crate::settings::Settings;
use crate::text::Text;

/// Both runs, and what they go on from after their device was lost.
#[derive(Debug)]
pub struct Training {
    settings: Settings,
    text: Text,
    gpu: Gpu,
    /// With the kernels that are compiled.
    clipper: Clipper,
    /// The run that clips, and the one that does not.
    runs: [Run; 2],
    saved: RefCell<[Saved; 2]>,
}

impl Training {
    /// Opens a device and prepares both runs from their beginning.
    ///
    /// # Errors
    ///
    /// [`WebError::NoDevice`], [`WebError::Text`], and where library or device refuse it.
    pub async fn start(
        backends: wgpu::Backends,
        settings: Settings,
        text: &str,
    ) -> Result<Training, WebError> {
        let opened = Training::open(backends).await?;
        Training::begin(opened, settings, text).await
    }

    /// Another training from its beginning, on the same device, whose kernels stay compiled.
    ///
    /// # Errors
    ///
    /// As [`Training::start`], and [`WebError::Lost`].
    pub async fn restart(&self, settings: Settings, text: &str) -> Result<Training, WebError> {
        self.gpu.check()?;
        Training::begin((self.gpu.clone(), self.clipper.clone()), settings, text).await
    }

    async fn begin(opened: (Gpu, Clipper), settings: Settings, text: &str) -> Result<Training, WebError> {
        let text = Text::new(text, settings.length)?;
        let first = Saved::first(Model { symbols: text.vocabulary }, settings.seed);
        Training::prepare(opened, settings, text, [first.clone(), first]).await
    }

    async fn open(backends: wgpu::Backends) -> Result<(Gpu, Clipper), WebError> {
        let gpu = Gpu::open(backends).await?;
        let options = ClipperOptions::default().read_backs(MOST_STEPS);
        let clipper = Clipper::with_options(&gpu.device, options)?;
        Ok((gpu, clipper))
    }

    /// The same training on a new device, from where it was last saved.
    ///
    /// # Errors
    ///
    /// As [`Training::start`].
    pub async fn resume(&self, backends: wgpu::Backends) -> Result<Training, WebError> {
        let saved = self.saved.borrow().clone();
        let opened = Training::open(backends).await?;
        Training::prepare(opened, self.settings.clone(), self.text.clone(), saved).await
    }

    async fn prepare(
        (gpu, clipper): (Gpu, Clipper),
        settings: Settings,
        text: Text,
        saved: [Saved; 2],
    ) -> Result<Training, WebError> {
        // Only measured. An optimiser by itself does not look whether gradients are finite, so neither does this run.
        let free = Clip::measure().on_non_finite(NonFinite::Nan);
        let what = (&text, &settings);
        let clipped = Run::prepare(&gpu, &clipper, what, &settings.clip(), &saved[0]).await?;
        let free = Run::prepare(&gpu, &clipper, what, &free, &saved[1]).await?;
        Ok(Training { settings, text, gpu, clipper, runs: [clipped, free], saved: RefCell::new(saved) })
    }

    /// The device.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Steps up to where it would go on from.
    pub fn saved_steps(&self) -> u64 {
        self.saved.borrow()[0].steps()
    }

    /// Makes some steps of both runs, at most [`MOST_STEPS`].
    ///
    /// # Errors
    ///
    /// [`WebError::Lost`], after which [`Training::resume`] goes on; other words of the device.
    pub async fn steps(&self, steps: usize) -> Result<[Vec<Step>; 2], WebError> {
        self.gpu.check()?;
        let steps = steps.clamp(1, MOST_STEPS);
        let [clipped, free] = &self.runs;
        let recorded = [clipped.submit(steps), free.submit(steps)];
        let [of_clipped, of_free] = recorded.map(|result| result.map_err(|error| self.gpu.reason(error)));
        let whole = self.settings.clip().scope == Scope::Global;
        let of_clipped = clipped.results(of_clipped?, whole).await?;
        Ok([of_clipped, free.results(of_free?, true).await?])
    }

    /// Parameters and gradients of the run that clips, as [`Run::read`] has them.
    ///
    /// # Errors
    ///
    /// As [`Training::steps`].
    pub async fn read(&self) -> Result<Vec<f32>, WebError> {
        self.runs[0].read().await
    }

    /// Remembers where both runs stand.
    ///
    /// # Errors
    ///
    /// As [`Training::steps`].
    pub async fn save(&self) -> Result<(), WebError> {
        let [clipped, free] = &self.runs;
        let saved = [clipped.save().await?, free.save().await?];
        *self.saved.borrow_mut() = saved;
        Ok(())
    }
}
