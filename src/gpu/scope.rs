//! Errors that wgpu raises aside, as values.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use crate::error::DeviceError;

/// Runs `make` and turns whatever wgpu raises meanwhile into an error value.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn caught<T>(
    device: &wgpu::Device,
    what: &'static str,
    make: impl FnOnce() -> T,
) -> Result<T, DeviceError> {
    // A shader that the driver refuses is an internal error, and a panic where nobody listens.
    let filters =
        [wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Validation, wgpu::ErrorFilter::Internal];
    let scopes = filters.map(|filter| device.push_error_scope(filter));
    let made = make();
    let mut error = None;
    for scope in scopes.into_iter().rev() {
        error = now(scope.pop()).flatten().or(error);
    }
    match error {
        None => Ok(made),
        Some(error) => Err(DeviceError::new(what, error)),
    }
}

/// Runs `make`: browsers answer error scopes asynchronously, so errors go to the device's own handler.
#[cfg(target_arch = "wasm32")]
pub(crate) fn caught<T>(
    _: &wgpu::Device,
    _: &'static str,
    make: impl FnOnce() -> T,
) -> Result<T, DeviceError> {
    Ok(make())
}

/// The output of a future that is ready at once.
pub(crate) fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}
