//! Where gradients and the tensors updated with them lie, as a plan sees it.

use std::collections::HashMap;

use crate::error::PrepareError;
use crate::grad::Grad;
use crate::plan::Placement;
use crate::tensor::DType;

/// The distinct buffers, numbered in the order in which they are met.
#[derive(Default)]
pub(super) struct Buffers {
    numbers: HashMap<wgpu::Buffer, usize>,
    pub(super) all: Vec<wgpu::Buffer>,
}

impl Buffers {
    fn number(&mut self, buffer: &wgpu::Buffer) -> usize {
        *self.numbers.entry(buffer.clone()).or_insert_with(|| {
            self.all.push(buffer.clone());
            self.all.len() - 1
        })
    }

    /// Something from this byte of a buffer on.
    pub(super) fn at(&mut self, buffer: &wgpu::Buffer, offset: u64) -> Placement {
        let buffer_size = buffer.size();
        Placement { buffer: self.number(buffer), buffer_size, offset, ..Placement::default() }
    }

    /// Where a gradient lies.
    pub(super) fn gradient(&mut self, grad: &Grad) -> Placement {
        Placement {
            name: grad.name.clone(),
            buffer: self.number(&grad.buffer),
            buffer_size: grad.buffer.size(),
            offset: grad.offset,
            elements: grad.elements(),
            dtype: grad.dtype,
            shape: grad.shape.clone(),
            group: grad.group.clone(),
            parameter: None,
        }
    }

    /// Where something in the shape of a gradient's parameter lies.
    pub(super) fn operand(
        &mut self,
        grad: &Grad,
        what: &str,
        dtype: DType,
        (buffer, offset): (&wgpu::Buffer, u64),
    ) -> Placement {
        Placement {
            name: format!("{} ({what})", grad.name),
            buffer: self.number(buffer),
            buffer_size: buffer.size(),
            offset,
            elements: grad.parameter_elements(),
            dtype,
            ..self.gradient(grad)
        }
    }
}

/// Where each tensor lies, and the distinct buffers.
pub(super) fn placements(grads: &[Grad], parameters: bool) -> (Vec<Placement>, Vec<wgpu::Buffer>) {
    let mut buffers = Buffers::default();
    let placements = grads
        .iter()
        .map(|grad| {
            let gradient = buffers.gradient(grad);
            let parameter = grad
                .parameter
                .as_ref()
                .filter(|_| parameters)
                .map(|p| Box::new(buffers.operand(grad, "parameter", p.dtype, (&p.buffer, p.offset))));
            Placement { parameter, ..gradient }
        })
        .collect();
    (placements, buffers.all)
}

/// That a buffer can be bound.
pub(super) fn check_usage(grad: &Grad, buffer: &wgpu::Buffer) -> Result<(), PrepareError> {
    if buffer.usage().contains(wgpu::BufferUsages::STORAGE) {
        return Ok(());
    }
    Err(PrepareError::Usage { tensor: grad.name.clone(), given: buffer.usage() })
}
