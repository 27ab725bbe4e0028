//! What workers of the page call.

use std::collections::HashMap;
use std::path::PathBuf;

use gradclip::wgpu::Backends;
use gradclip_cli::clip_in_memory;
use js_sys::{Function, Uint8Array};
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::error::WebError;
use crate::gpu::Gpu;
use crate::run::Step;
use crate::settings::Settings;
use crate::{bench, training, verify};

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

    /// Other runs on the same device.
    pub async fn restart(&self, settings: String, text: String) -> Result<Training, WebError> {
        self.0.restart(Settings::parse(&settings)?, &text).await.map(Training)
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

    /// Parameters and gradients of the run that clips.
    pub async fn read(&self) -> Result<Vec<f32>, WebError> {
        self.0.read().await
    }

    /// Remembers where both runs stand.
    pub async fn save(&self) -> Result<(), WebError> {
        self.0.save().await
    }

    /// Why the device was lost, if it was.
    pub fn lost(&self) -> Option<String> {
        self.0.gpu().lost()
    }

    /// Destroys the device, as a driver that crashes does.
    pub fn lose(&self) {
        self.0.gpu().device.destroy();
    }
}

/// What one in `share` checks of each kind found, as JSON of [`verify::Found`]. `told` is called with JSON of [`verify::Progress`].
#[wasm_bindgen]
pub async fn verify(share: usize, told: Function) -> Result<String, WebError> {
    let tell = |progress: &verify::Progress| {
        let words = serde_json::to_string(progress).unwrap_or_default();
        // A page that does not listen is its own affair.
        let _ = told.call1(&JsValue::NULL, &words.into());
    };
    json(&verify::verify(Backends::BROWSER_WEBGPU, share, tell).await?)
}

/// A device that is measured.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Bench(Gpu);

#[wasm_bindgen]
impl Bench {
    /// Opens one.
    pub async fn open() -> Result<Bench, WebError> {
        Gpu::open(Backends::BROWSER_WEBGPU).await.map(Bench)
    }

    /// What it is called.
    pub fn device(&self) -> String {
        self.0.name()
    }

    /// Times of one size, as JSON of [`bench::Timing`].
    pub async fn time(&self, elements: u32) -> Result<String, WebError> {
        json(&bench::time(&self.0, elements).await?)
    }
}

fn json(value: &impl serde::Serialize) -> Result<String, WebError> {
    serde_json::to_string(value).map_err(|error| WebError::Device(error.to_string()))
}

/// What `gradclip clip` made of a file.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Clipped {
    bytes: Vec<u8>,
    report: String,
    refused: Option<String>,
}

#[wasm_bindgen]
impl Clipped {
    /// The file to be saved; empty where it was refused.
    pub fn bytes(&self) -> Uint8Array {
        Uint8Array::from(&self.bytes[..])
    }

    /// What the command line prints.
    pub fn report(&self) -> String {
        self.report.clone()
    }

    /// Why there is no file, if there is none.
    pub fn refused(&self) -> Option<String> {
        self.refused.clone()
    }
}

/// Does what `gradclip clip` does with `arguments`, written as for a shell, to files of these names.
#[wasm_bindgen]
pub fn clip(arguments: &str, names: Vec<String>, contents: Vec<Uint8Array>) -> Clipped {
    let refused = |words: String, report: Option<String>| Clipped {
        bytes: Vec::new(),
        report: report.unwrap_or_default(),
        refused: Some(words),
    };
    let Some(arguments) = shlex::split(arguments) else {
        return refused("options: a quotation mark does not end".into(), None);
    };
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let contents = contents.iter().map(|bytes| bytes.to_vec().into());
    let files: HashMap<PathBuf, _> = names.into_iter().map(PathBuf::from).zip(contents).collect();
    match clip_in_memory(&arguments, &files) {
        Ok(clipped) => Clipped { bytes: clipped.bytes, report: clipped.report, refused: None },
        Err(error) => refused(error.message, error.report),
    }
}
