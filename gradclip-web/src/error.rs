//! What can go wrong on the page.

use gradclip::{ClipError, PlanError, PrepareError, ReadBackError, StepError};
use thiserror::Error;

/// Why something was not done, in words that the page shows.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WebError {
    /// The browser has no WebGPU, or gives no adapter or device.
    #[error("{0}")]
    NoDevice(String),
    /// The device was lost; what was computed since the last snapshot is gone.
    #[error("the device was lost: {0}")]
    Lost(String),
    /// The controls say something that cannot be.
    #[error("{0}")]
    Settings(String),
    /// The text is too short.
    #[error("text: expected more than {required} characters, given {given}")]
    Text {
        /// Characters that a sequence and the symbol after it take.
        required: usize,
        /// Characters that there are.
        given: usize,
    },
    /// The library refused to prepare something.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// The device is too small.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A clip is not possible.
    #[error(transparent)]
    Clip(#[from] ClipError),
    /// A learning rate is not possible.
    #[error(transparent)]
    Step(#[from] StepError),
    /// A result did not come back.
    #[error(transparent)]
    ReadBack(#[from] ReadBackError),
    /// A check could not be made.
    #[error(transparent)]
    Verify(#[from] gradclip_verify::Failure),
    /// The device refused something of the page's own.
    #[error("{0}")]
    Device(String),
}

#[cfg(target_arch = "wasm32")]
impl From<WebError> for wasm_bindgen::JsValue {
    /// An `Error` whose `name` says whether going on may be offered.
    fn from(error: WebError) -> wasm_bindgen::JsValue {
        let value = js_sys::Error::new(&error.to_string());
        value.set_name(match error {
            WebError::Lost(_) => "Lost",
            WebError::NoDevice(_) => "NoDevice",
            _ => "Error",
        });
        value.into()
    }
}
