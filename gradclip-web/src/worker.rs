//! What workers of the page call.

use gradclip::wgpu::Backends;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::error::WebError;
use crate::run::Step;
use crate::settings::Settings;
use crate::training;

/// Words of panics go to the console.
#[wasm_bindgen(start)]
pub fn start() {
    console_error_panic_hook::set_once();
}

/// A [`training::Training`] in this worker.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Training(training::Training);

#[wasm_bindgen]
impl Training {
    /// Opens a device and prepares both runs; `settings` is the page's JSON.
    pub async fn start(settings: String, text: String) -> Result<Training, WebError> {
        let settings = Settings::parse(&settings)?;
        training::Training::start(Backends::BROWSER_WEBGPU, settings, &text).await.map(Training)
    }

    /// The same on a new device, from where it was last saved.
    pub async fn resume(&self) -> Result<Training, WebError> {
        self.0.resume(Backends::BROWSER_WEBGPU).await.map(Training)
    }

    /// What the device is called.
    pub fn device(&self) -> String {
        self.0.gpu().name()
    }

    /// Steps up to where it would go on from.
    pub fn saved(&self) -> f64 {
        self.0.saved_steps() as f64
    }

    /// Makes some steps: the numbers of each step of the run that clips, then of the other.
    pub async fn steps(&self, steps: usize) -> Result<Vec<f64>, WebError> {
        let [clipped, free] = self.0.steps(steps).await?;
        Ok(clipped.iter().chain(&free).flat_map(Step::numbers).collect())
    }

    /// Remembers where both runs stand.
    pub async fn save(&self) -> Result<(), WebError> {
        self.0.save().await
    }

    /// Destroys the device, as a driver that crashes does.
    pub fn lose(&self) {
        self.0.gpu().device.destroy();
    }
}
