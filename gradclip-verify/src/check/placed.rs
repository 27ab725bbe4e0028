//! A gradient set on a device: uploaded, and compared with what should have become of it.

use std::collections::HashSet;

use gradclip::wgpu::BufferUsages as Usage;
use gradclip::{Grad, wgpu};

use crate::gpu::Gpu;
use crate::inputs::Case;
use crate::tally::Findings;
use crate::tensor::{Data, Tensor};

/// What lies between tensors in memory and must stay.
const GUARD: u8 = 0xa5;
/// Largest offset of the first tensor, so that alignment is not taken for granted.
const LEAD: u64 = 12;

/// Gradients on the device: in one arena, packed without gaps but for alignment, or in buffers of
/// their own.
pub(crate) struct Placed {
    pub(crate) buffers: Vec<wgpu::Buffer>,
    pub(crate) grads: Vec<Grad>,
    /// Buffer and first byte of each tensor.
    places: Vec<(usize, u64)>,
    /// What the buffers hold, tensors and gaps.
    contents: Vec<Vec<u8>>,
}

impl Placed {
    pub(crate) fn upload(gpu: &Gpu, case: &Case) -> Placed {
        let mut contents: Vec<Vec<u8>> = Vec::new();
        let mut places = Vec::new();
        for (i, tensor) in case.tensors.iter().enumerate() {
            if contents.is_empty() || !case.arena {
                contents.push(vec![GUARD; (i as u64 * 4 % (LEAD + 4)) as usize]);
            }
            let buffer = contents.len() - 1;
            let bytes = &mut contents[buffer];
            let size = tensor.data.dtype().size() as usize;
            bytes.resize(bytes.len().next_multiple_of(size), GUARD);
            places.push((buffer, bytes.len() as u64));
            bytes.extend_from_slice(tensor.data.bytes());
        }
        for bytes in &mut contents {
            bytes.resize(bytes.len().next_multiple_of(4).max(4), GUARD);
        }
        let usage = Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST;
        let buffers: Vec<wgpu::Buffer> =
            contents.iter().map(|bytes| gpu.buffer(bytes.len() as u64, usage)).collect();
        for (buffer, bytes) in buffers.iter().zip(&contents) {
            gpu.queue.write_buffer(buffer, 0, bytes);
        }
        let parameters = Placed::upload_parameters(gpu, case);
        let grad = |(i, t): (usize, &Tensor)| {
            let (buffer, offset) = places[i];
            let grad = Grad::range(&t.name, &buffers[buffer], offset, t.data.len() as u64)
                .dtype(t.data.dtype())
                .shape(&case.shapes[i]);
            let grad = if let Some(named) = case.groups[i] { grad.group(&named.group()) } else { grad };
            match parameters.get(i) {
                Some((buffer, offset)) => grad.parameter(buffer, *offset, case.parameters[i].dtype()),
                None => grad,
            }
        };
        let grads = case.tensors.iter().enumerate().map(grad).collect();
        Placed { buffers, grads, places, contents }
    }

    /// Puts other numbers where the tensors are.
    pub(crate) fn put(&mut self, gpu: &Gpu, tensors: &[Tensor]) {
        for (tensor, &(buffer, offset)) in tensors.iter().zip(&self.places) {
            let bytes = tensor.data.bytes();
            self.contents[buffer][offset as usize..][..bytes.len()].copy_from_slice(bytes);
        }
        for (buffer, bytes) in self.buffers.iter().zip(&self.contents) {
            gpu.queue.write_buffer(buffer, 0, bytes);
        }
    }

    /// Whether the buffers hold what was put there.
    pub(crate) fn untouched(&self, got: &[Vec<u8>]) -> bool {
        self.contents == got
    }

    /// Buffer and first byte of each tensor's parameters, which lie in one buffer.
    fn upload_parameters(gpu: &Gpu, case: &Case) -> Vec<(wgpu::Buffer, u64)> {
        let mut bytes = Vec::new();
        let mut places = Vec::new();
        for data in &case.parameters {
            bytes.resize(bytes.len().next_multiple_of(data.dtype().size() as usize), GUARD);
            places.push(bytes.len() as u64);
            bytes.extend_from_slice(data.bytes());
        }
        bytes.resize(bytes.len().next_multiple_of(4).max(4), GUARD);
        let buffer = gpu.buffer(bytes.len() as u64, Usage::STORAGE | Usage::COPY_DST);
        gpu.queue.write_buffer(&buffer, 0, &bytes);
        places.into_iter().map(|offset| (buffer.clone(), offset)).collect()
    }

    /// Compares every tensor, and whatever lies between tensors with what lay there before.
    /// Elements in words of their tensor alone are apply's, others are those of seams.
    pub(crate) fn compare(&self, before: &[Tensor], expected: &[Tensor], got: &[Vec<u8>]) -> [Findings; 2] {
        let (mut apply, mut seams) = (Findings::default(), Findings::default());
        let mut gaps: Vec<Vec<u8>> = got.to_vec();
        let shared = self.shared(expected);
        for ((tensor, before), &(buffer, offset)) in expected.iter().zip(before).zip(&self.places) {
            let range = offset as usize..offset as usize + tensor.data.bytes().len();
            let result = Data::from_bytes(tensor.data.element(), &got[buffer][range.clone()]);
            let size = tensor.data.dtype().size();
            let is_shared = |i: usize| shared.contains(&(buffer, (offset + i as u64 * size) / 4));
            let len = tensor.data.len();
            let own = usize::from(is_shared(0)).min(len)..len - usize::from(len > 1 && is_shared(len - 1));
            apply.elements(&before.data, &tensor.data, &result, own.clone());
            seams.elements(&before.data, &tensor.data, &result, 0..own.start);
            seams.elements(&before.data, &tensor.data, &result, own.end..len);
            gaps[buffer][range.clone()].copy_from_slice(&self.contents[buffer][range]);
        }
        let touched = gaps.iter().zip(&self.contents).filter(|(a, b)| a != b).count();
        apply.wrong += touched as u64;
        [apply, seams]
    }

    /// The words, by buffer, that hold elements of two tensors.
    fn shared(&self, tensors: &[Tensor]) -> HashSet<(usize, u64)> {
        let mut seen = HashSet::new();
        let mut shared = HashSet::new();
        for (tensor, &(buffer, offset)) in tensors.iter().zip(&self.places).filter(|(t, _)| t.data.len() > 0)
        {
            let last = offset + tensor.data.bytes().len() as u64 - 1;
            let words = HashSet::from([(buffer, offset / 4), (buffer, last / 4)]);
            shared.extend(words.intersection(&seen));
            seen.extend(words);
        }
        shared
    }
}

/// Tensors of f32 that belong to the gradients, in one buffer.
pub(crate) struct Beside {
    pub(crate) buffer: wgpu::Buffer,
    /// First byte of each tensor.
    pub(crate) offsets: Vec<u64>,
    contents: Vec<u8>,
}

impl Beside {
    /// Packed without a gap but the first, or so far apart that each can be bound by itself.
    pub(crate) fn upload(gpu: &Gpu, tensors: &[&Vec<f32>], packed: bool) -> Beside {
        let mut contents = vec![GUARD; LEAD as usize];
        let mut offsets = Vec::new();
        for tensor in tensors {
            let alignment = if packed { 4 } else { 256 };
            contents.resize(contents.len().next_multiple_of(alignment), GUARD);
            offsets.push(contents.len() as u64);
            contents.extend_from_slice(bytemuck::cast_slice(tensor));
        }
        contents.resize(contents.len() + LEAD as usize, GUARD);
        let usage = Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST;
        let buffer = gpu.buffer(contents.len() as u64, usage);
        gpu.queue.write_buffer(&buffer, 0, &contents);
        Beside { buffer, offsets, contents }
    }

    /// Tensors of these lengths in what was read back. None where something changed between them.
    pub(crate) fn tensors(
        &self,
        got: &[u8],
        lengths: impl IntoIterator<Item = usize>,
    ) -> Option<Vec<Vec<f32>>> {
        let mut gaps = got.to_vec();
        let mut tensors = Vec::new();
        for (&offset, length) in self.offsets.iter().zip(lengths) {
            let range = offset as usize..offset as usize + length * 4;
            tensors.push(bytemuck::pod_collect_to_vec(&got[range.clone()]));
            gaps[range.clone()].copy_from_slice(&self.contents[range]);
        }
        (gaps == self.contents).then_some(tensors)
    }
}
