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

impl Clipper {
    /// What a step with so many moments keeps of each tensor: what is named, else what was kept before, else allocated.
    pub(super) fn kept(
        &self,
        grads: &[Grad],
        count: usize,
        before: Option<&Kept>,
    ) -> Result<Kept, PrepareError> {
        let (moments, masters) = before.map_or((None, None), |b| (Some(&b.moments), Some(&b.masters)));
        Ok(Kept { moments: self.moments(grads, count, moments)?, masters: self.masters(grads, masters)? })
    }

    fn masters(
        &self,
        grads: &[Grad],
        before: Option<&Vec<Option<Moment>>>,
    ) -> Result<Vec<Option<Moment>>, PrepareError> {
        let known = |(i, g): (usize, &Grad)| match &g.master {
            Some((buffer, offset)) => {
                Some(Moment { buffer: buffer.clone(), offset: *offset, elements: g.elements() })
            }
            None => before.and_then(|before| before[i].clone()),
        };
        let mut masters: Vec<Option<Moment>> = grads.iter().enumerate().map(known).collect();
        let has_one = |g: &Grad| matches!(g.precision(), Precision::Mixed(_));
        let missing =
            (0..grads.len()).filter(|&i| masters[i].is_none() && has_one(&grads[i])).collect::<Vec<_>>();
        let made = self.allocated(grads, &missing, "master")?;
        missing.into_iter().zip(made).for_each(|(i, master)| masters[i] = Some(master));
        Ok(masters)
    }

    /// The accumulator of each tensor.
    pub(super) fn accumulators(&self, grads: &[Grad]) -> Result<Vec<Moment>, PrepareError> {
        let missing: Vec<usize> = (0..grads.len()).filter(|&i| grads[i].accumulator.is_none()).collect();
        let mut made = self.allocated(grads, &missing, "accumulator")?.into_iter();
        let of = |grad: &Grad| match &grad.accumulator {
            Some((buffer, offset)) => {
                Some(Moment { buffer: buffer.clone(), offset: *offset, elements: grad.elements() })
            }
            None => made.next(),
        };
        Ok(grads.iter().filter_map(of).collect())
    }

    fn moments(
        &self,
        grads: &[Grad],
        count: usize,
        before: Option<&Vec<Vec<Moment>>>,
    ) -> Result<Vec<Vec<Moment>>, PrepareError> {
        let known = |(i, g): (usize, &Grad)| -> Vec<Moment> {
            if let Some(before) = before.filter(|_| g.moments.is_empty()) {
                return before[i].clone();
            }
            let named = g.moments.iter().take(count);
            named
                .map(|(b, offset)| Moment { buffer: b.clone(), offset: *offset, elements: g.elements() })
                .collect()
        };
        let mut moments: Vec<Vec<Moment>> = grads.iter().enumerate().map(known).collect();
        for k in 0..count {
            let missing: Vec<usize> = (0..grads.len()).filter(|&i| moments[i].len() == k).collect();
            let made = self.allocated(grads, &missing, "moment")?;
            missing.iter().zip(made).for_each(|(&i, moment)| moments[i].push(moment));
        }
        Ok(moments)
    }

    /// One tensor of `f32` for each of those that are missing, all 0.
    fn allocated(&self, grads: &[Grad], missing: &[usize], what: &str) -> Result<Vec<Moment>, PrepareError> {
        let sizes: Vec<u64> = missing.iter().map(|&i| grads[i].elements()).collect();
        let given = self.device.limits().max_buffer_size;
        if let Some(&i) = missing.iter().find(|&&i| grads[i].elements() > given / 4) {
            let tensor = format!("{} ({what})", grads[i].name);
            let required = grads[i].elements().saturating_mul(4);
            return Err(PrepareError::BufferSize { tensor, required, given });
        }
        Ok(caught(&self.device, "allocating optimiser state", || arenas(&self.device, &sizes))?)
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
