//! The way of a history from the device to the host.

use std::sync::Arc;

use crate::error::PrepareError;
use crate::history::History;

use super::mapped::{Copy, Place, ReadBack, Tags};
use super::records::Memory;
use super::scope::caught;

/// Records the copy of a history, as `empty` has its form.
pub(super) async fn save(
    device: &wgpu::Device,
    encoder: &mut wgpu::CommandEncoder,
    memory: &Memory,
    empty: History,
) -> Result<ReadBack<History>, PrepareError> {
    let copies = copies(memory, &empty);
    let bytes = copies.iter().map(|(_, _, bytes)| bytes).sum();
    let place = caught(device, "saving a history", || {
        Tags::new(device).map(|tags| Place::new(device, "gradclip saved history", bytes, Some(tags)))
    });
    Ok(Arc::new(place.await??).read_back(encoder, copies, move |bytes| Ok(read(&empty, bytes))))
}

/// What a history is copied from, as `empty` has its form.
pub(super) fn copies<'m>(memory: &'m Memory, empty: &History) -> [Copy<'m>; 6] {
    [
        (&memory.tally, size_of_val(&empty.tally)),
        (&memory.states, size_of_val(&empty.states[..])),
        (&memory.norms, size_of_val(&empty.norms[..])),
        (&memory.progress, size_of_val(&empty.progress)),
        (&memory.inputs, size_of_val(&empty.inputs)),
        (&memory.watched, size_of_val(&empty.watched[..])),
    ]
    .map(|(from, bytes)| (from, 0, bytes as u64))
}

/// What was copied; something else may follow it.
pub(super) fn read(empty: &History, bytes: &[u8]) -> History {
    let mut history = empty.clone();
    let (tally, rest) = bytes.split_at(size_of_val(&history.tally));
    let (states, rest) = rest.split_at(size_of_val(&history.states[..]));
    let (norms, rest) = rest.split_at(size_of_val(&history.norms[..]));
    let (progress, rest) = rest.split_at(size_of_val(&history.progress));
    let (inputs, rest) = rest.split_at(size_of_val(&history.inputs));
    let watched = &rest[..size_of_val(&history.watched[..])];
    bytemuck::bytes_of_mut(&mut history.tally).copy_from_slice(tally);
    bytemuck::bytes_of_mut(&mut history.progress).copy_from_slice(progress);
    bytemuck::cast_slice_mut(&mut history.states).copy_from_slice(states);
    bytemuck::cast_slice_mut(&mut history.norms).copy_from_slice(norms);
    bytemuck::bytes_of_mut(&mut history.inputs).copy_from_slice(inputs);
    bytemuck::cast_slice_mut(&mut history.watched).copy_from_slice(watched);
    history
}
