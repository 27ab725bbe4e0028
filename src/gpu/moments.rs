//! The state of an optimiser on the device.

use wgpu::BufferUsages as Usage;

use crate::error::PrepareError;
use crate::grad::Grad;

use super::clipper::Clipper;
use super::scope::caught;

/// Where a state tensor of an optimiser lies: `f32` in its parameter's shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Moment {
    /// The buffer. Those that a [`Stepper`](crate::Stepper) allocates have usages `STORAGE | COPY_SRC | COPY_DST`, so
    /// that they can be saved and restored.
    pub buffer: wgpu::Buffer,
    /// First byte.
    pub offset: u64,
    /// Number of elements.
    pub elements: u64,
}

impl Clipper {
    /// The state of each tensor, allocated where it is not named.
    pub(super) fn moments(&self, grads: &[Grad], count: usize) -> Result<Vec<Vec<Moment>>, PrepareError> {
        let mut moments: Vec<Vec<Moment>> = grads
            .iter()
            .map(|g| {
                let named = g.moments.iter().take(count);
                named
                    .map(|(b, offset)| Moment { buffer: b.clone(), offset: *offset, elements: g.elements() })
                    .collect()
            })
            .collect();
        for k in 0..count {
            let missing: Vec<usize> = (0..grads.len()).filter(|&i| moments[i].len() == k).collect();
            let sizes: Vec<u64> = missing.iter().map(|&i| grads[i].elements()).collect();
            let given = self.device.limits().max_buffer_size;
            if let Some(&i) = missing.iter().find(|&&i| grads[i].elements() > given / 4) {
                let tensor = format!("{} (moment)", grads[i].name);
                let required = grads[i].elements().saturating_mul(4);
                return Err(PrepareError::BufferSize { tensor, required, given });
            }
            let made = caught(&self.device, "allocating optimiser state", || arenas(&self.device, &sizes))?;
            missing.iter().zip(made).for_each(|(&i, moment)| moments[i].push(moment));
        }
        Ok(moments)
    }
}

/// Tensors of these numbers of elements in as few buffers as the device allows, each where any device
/// can bind it.
fn arenas(device: &wgpu::Device, sizes: &[u64]) -> Vec<Moment> {
    const ALIGNMENT: u64 = 256;
    let largest = device.limits().max_buffer_size;
    let mut places: Vec<(usize, u64)> = Vec::new();
    let mut lengths: Vec<u64> = Vec::new();
    for bytes in sizes.iter().map(|elements| elements * 4) {
        let end = lengths.last().map_or(0, |l| l.next_multiple_of(ALIGNMENT));
        if lengths.is_empty() || end + bytes > largest {
            lengths.push(bytes);
            places.push((lengths.len() - 1, 0));
        } else if let Some(last) = lengths.last_mut() {
            *last = end + bytes;
            places.push((lengths.len() - 1, end));
        }
    }
    let buffers: Vec<wgpu::Buffer> = lengths
        .iter()
        .map(|&length| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("gradclip optimiser state"),
                size: length.max(4),
                usage: Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST,
                mapped_at_creation: false,
            })
        })
        .collect();
    let moment = |(&(arena, offset), &elements): (&(usize, u64), &u64)| {
        let buffer: &wgpu::Buffer = &buffers[arena];
        Moment { buffer: buffer.clone(), offset, elements }
    };
    places.iter().zip(sizes).map(moment).collect()
}
