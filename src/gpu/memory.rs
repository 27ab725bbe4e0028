//! The way of a history from the device to the host.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_intrusive::channel::shared::oneshot_channel;

use crate::error::{PrepareError, ReadBackError};
use crate::history::History;

use super::buffers::filled;
use super::records::Memory;
use super::scope::{caught, now};

type Mapped = Pin<Box<dyn Future<Output = Option<Result<(), wgpu::BufferAsyncError>>> + Send>>;

/// Copied at the end, so that a copy that never ran is told from one of zeros.
const ARRIVED: u32 = 1;

/// A history on its way to the host: a future of the [`History`], ready after its commands have run,
/// when the device is next polled.
pub struct SavedHistory {
    mapped: Mapped,
    buffer: wgpu::Buffer,
    /// Of the right form.
    empty: History,
}

impl std::fmt::Debug for SavedHistory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SavedHistory").field("buffer", &self.buffer).finish_non_exhaustive()
    }
}

impl SavedHistory {
    pub(super) fn record(
        device: &wgpu::Device,
        encoder: &mut wgpu::CommandEncoder,
        memory: &Memory,
        empty: History,
    ) -> Result<SavedHistory, PrepareError> {
        let parts = [
            (&memory.tally, size_of_val(&empty.tally)),
            (&memory.states, size_of_val(&empty.states[..])),
            (&memory.norms, size_of_val(&empty.norms[..])),
            (&memory.progress, size_of_val(&empty.progress)),
        ];
        let bytes: u64 = parts.iter().map(|(_, bytes)| *bytes as u64).sum();
        let (buffer, arrived) = caught(device, "saving a history", || {
            let buffer = device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("gradclip saved history"),
                size: bytes + size_of_val(&ARRIVED) as u64,
                usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
                mapped_at_creation: false,
            });
            let usage = wgpu::BufferUsages::COPY_SRC;
            (buffer, filled(device, "gradclip arrived", bytemuck::bytes_of(&ARRIVED), usage))
        })?;
        let arrived = arrived?;
        let mut at = 0;
        for (from, bytes) in parts.into_iter().chain([(&arrived, size_of_val(&ARRIVED))]) {
            if bytes > 0 {
                encoder.copy_buffer_to_buffer(from, 0, &buffer, at, bytes as u64);
            }
            at += bytes as u64;
        }
        let (sender, receiver) = oneshot_channel();
        encoder.map_buffer_on_submit(&buffer, wgpu::MapMode::Read, .., move |result| {
            // Nobody listens any more where the future was dropped.
            let _ = sender.send(result);
        });
        let mapped = Box::pin(async move { receiver.receive().await });
        Ok(SavedHistory { mapped, buffer, empty })
    }

    /// The history, if it has arrived: never waits.
    pub fn try_take(&mut self) -> Option<Result<History, ReadBackError>> {
        now(self)
    }

    /// Blocks until everything submitted to `device` has run, and returns the history.
    ///
    /// # Errors
    ///
    /// As [`ReadBack::wait`](crate::ReadBack::wait).
    #[cfg(not(target_arch = "wasm32"))]
    pub fn wait(mut self, device: &wgpu::Device) -> Result<History, ReadBackError> {
        device
            .poll(wgpu::PollType::wait_indefinitely())
            .map_err(|error| ReadBackError::Wait { message: error.to_string() })?;
        self.try_take().unwrap_or(Err(ReadBackError::NotSubmitted))
    }

    fn read(&self) -> Result<History, ReadBackError> {
        let view = self
            .buffer
            .get_mapped_range(..)
            .map_err(|error| ReadBackError::Map { message: error.to_string() })?;
        let mut history = self.empty.clone();
        let (tally, rest) = view.split_at(size_of_val(&history.tally));
        let (states, rest) = rest.split_at(size_of_val(&history.states[..]));
        let (norms, rest) = rest.split_at(size_of_val(&history.norms[..]));
        let (progress, arrived) = rest.split_at(size_of_val(&history.progress));
        if arrived != bytemuck::bytes_of(&ARRIVED) {
            return Err(ReadBackError::NotSubmitted);
        }
        bytemuck::bytes_of_mut(&mut history.tally).copy_from_slice(tally);
        bytemuck::bytes_of_mut(&mut history.progress).copy_from_slice(progress);
        bytemuck::cast_slice_mut(&mut history.states).copy_from_slice(states);
        bytemuck::cast_slice_mut(&mut history.norms).copy_from_slice(norms);
        Ok(history)
    }
}

impl Future for SavedHistory {
    type Output = Result<History, ReadBackError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.mapped.as_mut().poll(context).map(|mapped| match mapped {
            None => Err(ReadBackError::NotSubmitted),
            Some(Err(error)) => Err(ReadBackError::Map { message: error.to_string() }),
            Some(Ok(())) => self.read(),
        })
    }
}
