//! Buffers with contents.

use wgpu::BufferUsages as Usage;

use crate::error::{DeviceError, PrepareError};

/// A buffer with the given contents, padded with zeros to whole words and to at least one.
pub(crate) fn filled(
    device: &wgpu::Device,
    label: &'static str,
    bytes: &[u8],
    usage: Usage,
) -> Result<wgpu::Buffer, PrepareError> {
    filled_in(device, label, bytes.len() as u64, [(0, bytes)], usage)
}

/// A buffer of that many bytes, at least one word, with these contents at these places and zeros elsewhere.
pub(crate) fn filled_in<'b>(
    device: &wgpu::Device,
    label: &'static str,
    size: u64,
    contents: impl IntoIterator<Item = (usize, &'b [u8])>,
    usage: Usage,
) -> Result<wgpu::Buffer, PrepareError> {
    let buffer = device.create_buffer(&wgpu::BufferDescriptor {
        label: Some(label),
        size: size.next_multiple_of(4).max(4),
        usage,
        mapped_at_creation: true,
    });
    let mut view = buffer.get_mapped_range_mut(..).map_err(|error| DeviceError::new(label, error))?;
    for (at, bytes) in contents {
        view.slice(at..at + bytes.len()).copy_from_slice(bytes);
    }
    drop(view);
    buffer.unmap();
    Ok(buffer)
}
