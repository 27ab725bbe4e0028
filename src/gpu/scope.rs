//! Errors that wgpu raises aside, as values.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use crate::error::DeviceError;

/// Runs `make` at once, and is a future of what it made or of the error that wgpu raised meanwhile: wgpu itself answers at once, a browser
/// some time later.
///
/// Scopes of a device are a stack that all tasks share, so nothing may be awaited while one is open. They are closed when this returns.
pub(crate) fn caught<T>(
    device: &wgpu::Device,
    what: &'static str,
    make: impl FnOnce() -> T,
) -> impl Future<Output = Result<T, DeviceError>> {
    // A shader that the driver refuses is an internal error, and a panic where nobody listens.
    let filters =
        [wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Validation, wgpu::ErrorFilter::Internal];
    let [memory, validation, internal] = filters.map(|filter| device.push_error_scope(filter));
    let made = make();
    let internal = internal.pop();
    let validation = validation.pop();
    let memory = memory.pop();
    async move {
        let internal = if cfg!(target_arch = "wasm32") {
            // wgpu has no value for a browser's internal error and panics as it reads one, so this scope is only closed.
            // What was not made because of one shows where it is used: see `probe` in `pipelines.rs`.
            drop(internal);
            None
        } else {
            internal.await
        };
        let validation = validation.await;
        match memory.await.or(validation).or(internal) {
            None => Ok(made),
            Some(error) => Err(DeviceError::new(what, error)),
        }
    }
}

/// The output of a future, waited for by the calling thread. wgpu answers error scopes at once, so nothing is waited for that runs on
/// the device.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn waited<T>(future: impl Future<Output = T>) -> T {
    pollster::block_on(future)
}

/// The output of a future that is ready at once.
pub(crate) fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}
