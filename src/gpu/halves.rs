//! Elements of 16 bits that share a word with something else, which no copy reaches: kernels of steps do.

use half::{bf16, f16};
use wgpu::BufferUsages as Usage;

use crate::clip::Clip;
use crate::error::PrepareError;
use crate::grad::Grad;
use crate::optimizer::Sgd;
use crate::tensor::DType;

use super::buffers::filled;
use super::clipper::Clipper;
use super::scope::caught;
use super::stepper::Stepper;

/// One element, and what it is to be.
pub(super) struct Half<'b> {
    pub(super) buffer: &'b wgpu::Buffer,
    /// Its first byte.
    pub(super) offset: u64,
    pub(super) dtype: DType,
    pub(super) bits: u16,
    /// That of its tensor, for errors.
    pub(super) name: String,
}

impl Half<'_> {
    fn value(&self) -> f32 {
        let value = match self.dtype {
            DType::F16 => f16::from_bits(self.bits).to_f32(),
            _ => bf16::from_bits(self.bits).to_f32(),
        };
        // A master of 0 would be what is there. This one rounds to 0.
        if value.to_bits() == 0 { f32::from_bits(1) } else { value }
    }
}

impl Clipper {
    /// A step that sets these elements: each is a tensor whose master is its value, and the rate is 0.
    pub(super) async fn prepare_halves(&self, halves: &[Half<'_>]) -> Result<Stepper, PrepareError> {
        let values: Vec<f32> = halves.iter().map(Half::value).collect();
        let made = caught(&self.device, "restoring halves", || {
            let words = bytemuck::cast_slice(&values);
            let masters = filled(&self.device, "gradclip halves", words, Usage::STORAGE)?;
            let gradients = self.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("gradclip no gradients"),
                size: masters.size(),
                usage: Usage::STORAGE,
                mapped_at_creation: false,
            });
            Ok::<_, PrepareError>((masters, gradients))
        });
        let (masters, gradients) = made.await??;
        let grad = |(half, at): (&Half<'_>, u64)| {
            let grad = Grad::range(half.name.clone(), &gradients, at, 1);
            grad.parameter(half.buffer, half.offset, half.dtype).master(&masters, at)
        };
        let grads: Vec<Grad> = halves.iter().zip((0..).step_by(4)).map(grad).collect();
        self.prepare_step_async(&grads, &Clip::measure(), Sgd::new(0.0)).await
    }
}
