//! The state of an optimiser on the device.

use wgpu::BufferUsages as Usage;

use crate::error::PrepareError;
use crate::grad::Grad;
use crate::tensor::Precision;

use super::clipper::Clipper;
use super::scope::caught;

/// Where a state tensor of an optimiser lies, a master or an accumulator: `f32` in its parameter's shape.
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

/// What a step keeps of each tensor besides its parameter.
#[derive(Debug)]
pub(super) struct Kept {
    /// No, one, two or three moments.
    pub(super) moments: Vec<Vec<Moment>>,
    /// Those of parameters of 16 bits.
    pub(super) masters: Vec<Option<Moment>>,
}

impl Kept {
    /// Numbers of moments with their elements, and which have masters.
    pub(super) fn form(&self) -> Vec<(usize, u64, bool)> {
        let of = |(moments, master): (&Vec<Moment>, &Option<Moment>)| {
            (moments.len(), moments.first().map_or(0, |m| m.elements), master.is_some())
        };
        self.moments.iter().zip(&self.masters).map(of).collect()
    }
}

impl Moment {
    /// One in the shape of a gradient's parameter.
    pub(super) fn of(grad: &Grad, (buffer, offset): &(wgpu::Buffer, u64)) -> Moment {
        Moment { buffer: buffer.clone(), offset: *offset, elements: grad.parameter_elements() }
    }
}

impl Clipper {
    /// What a step with so many moments keeps of each tensor: what is named, else what was kept before, else allocated.
    pub(super) async fn kept(
        &self,
        grads: &[Grad],
        count: usize,
        before: Option<&Kept>,
    ) -> Result<Kept, PrepareError> {
        let mut moments = vec![Vec::new(); grads.len()];
        for k in 0..count {
            let kept = |i: usize| before.and_then(|b| b.moments[i].get(k).cloned());
            let all = self.places(grads, "moment", |g| g.moments.get(k), kept, |_| true).await?;
            moments.iter_mut().zip(all).for_each(|(own, moment)| own.extend(moment));
        }
        let kept = |i: usize| before.and_then(|b| b.masters[i].clone());
        let mixed = |g: &Grad| matches!(g.precision(), Precision::Mixed(_));
        let masters = self.places(grads, "master", |g| g.master.as_ref(), kept, mixed).await?;
        Ok(Kept { moments, masters })
    }

    /// The accumulator of each tensor.
    pub(super) async fn accumulators(&self, grads: &[Grad]) -> Result<Vec<Moment>, PrepareError> {
        let all = self.places(grads, "accumulator", |g| g.accumulator.as_ref(), |_| None, |_| true).await?;
        Ok(all.into_iter().flatten().collect())
    }

    /// For each tensor that needs one what it names, else what was there before, else a new one, all 0.
    async fn places<'g>(
        &self,
        grads: &'g [Grad],
        what: &str,
        named: impl Fn(&'g Grad) -> Option<&'g (wgpu::Buffer, u64)>,
        before: impl Fn(usize) -> Option<Moment>,
        needed: impl Fn(&Grad) -> bool,
    ) -> Result<Vec<Option<Moment>>, PrepareError> {
        let known = |(i, g): (usize, &'g Grad)| named(g).map(|at| Moment::of(g, at)).or_else(|| before(i));
        let mut places: Vec<Option<Moment>> = grads.iter().enumerate().map(known).collect();
        let missing: Vec<(&Grad, &mut Option<Moment>)> =
            grads.iter().zip(&mut places).filter(|(g, place)| place.is_none() && needed(g)).collect();
        let sizes: Vec<u64> = missing.iter().map(|(g, _)| g.parameter_elements()).collect();
        let given = self.device.limits().max_buffer_size;
        if let Some((grad, _)) = missing.iter().find(|(g, _)| g.parameter_elements() > given / 4) {
            let tensor = format!("{} ({what})", grad.name);
            let required = grad.parameter_elements().saturating_mul(4);
            return Err(PrepareError::BufferSize { tensor, required, given });
        }
        let made =
            caught(&self.device, "allocating optimiser state", || arenas(&self.device, &sizes)).await?;
        missing.into_iter().zip(made).for_each(|((_, place), new)| *place = Some(new));
        Ok(places)
    }
}

/// Tensors of these numbers of elements in as few buffers as the device allows, each where any device
/// can bind it.
pub(super) fn arenas(device: &wgpu::Device, sizes: &[u64]) -> Vec<Moment> {
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
