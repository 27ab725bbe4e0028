//! Sums of micro-batches.

use wgpu::BufferUsages as Usage;

use crate::clip::Clip;
use crate::error::{ClipError, PrepareError};
use crate::grad::Grad;
use crate::kernels::Kernel;
use crate::layout::{JointRow, JointTensor, Outcome};
use crate::plan::{Joined, Joint};
use crate::segments::Segments;
use crate::tensor::{DType, TensorInfo};

use super::clipper::Clipper;
use super::make::{Make, Step};
use super::pass::{Pass, begin, run};
use super::placements::{Buffers, check_usage};
use super::purpose::Purpose;
use super::scope::caught;

/// Adds the gradients of micro-batches into `f32` accumulators, prepared once and recorded for every
/// micro-batch.
///
/// Two things go by the name of accumulation with clipping:
///
/// - *Accumulate, then clip*, which is what a larger batch would do and what PyTorch users mean:
///   [`Clipper::prepare_accumulation`], and after the last micro-batch a clip or step over the
///   accumulators with [`Clip::unscale`] of 1 / count. The first micro-batch overwrites, so nothing is
///   cleared, and the mean is taken where gradients are read anyway: two passes over the accumulators
///   less than clearing, adding, dividing, clipping.
/// - *Clip, then accumulate*, which limits what each micro-batch can do (with one example each this is
///   the clipping of DP-SGD): [`Clipper::prepare_clipped_accumulation`]. Each micro-batch is clipped by
///   its own norm as it is added; its gradients are read twice and not written. Where one is not finite
///   under [`NonFinite::Skip`](crate::NonFinite::Skip), its segment adds nothing. The sum of clipped
///   gradients is not the clipped sum.
///
/// ```no_run
/// # fn run(device: &gradclip::wgpu::Device, queue: &gradclip::wgpu::Queue, micro: &gradclip::wgpu::Buffer,
/// #        sum: &gradclip::wgpu::Buffer) -> Result<(), Box<dyn std::error::Error>> {
/// use gradclip::{Clip, Clipper, Grad};
///
/// let clipper = Clipper::new(device)?;
/// let accumulator = clipper.prepare_accumulation(&[Grad::new("w", micro).accumulator(sum, 0)])?;
/// let clip = Clip::global_norm(1.0).unscale(1.0 / 4.0);
/// let pass = clipper.prepare(&[Grad::new("w", sum)], &clip)?;
/// let mut encoder = device.create_command_encoder(&Default::default());
/// for batch in 0..4 {
///     // … forward and backward into `micro` …
///     if batch == 0 { accumulator.record_first(&mut encoder) } else { accumulator.record_next(&mut encoder) }
/// }
/// pass.record(&mut encoder); // `sum` is the clipped mean
/// queue.submit([encoder.finish()]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Accumulator {
    pass: Option<Pass>,
    first: Vec<Step>,
    next: Vec<Step>,
}

impl Clipper {
    /// Prepares sums of gradients as they are, each into the accumulator that it names
    /// ([`Grad::accumulator`]). Gradients may be `f32`, `f16` or `bf16`.
    ///
    /// # Errors
    ///
    /// As [`Clipper::prepare`], and [`ClipError::Tensor`] for a gradient without an accumulator.
    pub fn prepare_accumulation(&self, grads: &[Grad]) -> Result<Accumulator, PrepareError> {
        Accumulator::new(self, grads, &Clip::measure(), None)
    }

    /// Prepares sums of clipped gradients: each micro-batch by its own norms.
    ///
    /// # Errors
    ///
    /// As [`Clipper::prepare_accumulation`].
    pub fn prepare_clipped_accumulation(
        &self,
        grads: &[Grad],
        clip: &Clip,
    ) -> Result<Accumulator, PrepareError> {
        let pass = self.prepared(grads, clip, Purpose::ReadOnly, None)?;
        Accumulator::new(self, grads, clip, Some(pass))
    }
}

impl Accumulator {
    fn new(
        clipper: &Clipper,
        grads: &[Grad],
        clip: &Clip,
        pass: Option<Pass>,
    ) -> Result<Accumulator, PrepareError> {
        let mut buffers = Buffers::default();
        let joined = grads.iter().map(|g| joined(g, &mut buffers)).collect::<Result<Vec<_>, _>>()?;
        let infos: Vec<TensorInfo> = grads.iter().map(Grad::info).collect();
        let parts = Segments::new(&infos, clip)?;
        let joint = Joint::new(&joined, &parts, &clipper.plan_limits())?;
        caught(&clipper.device, "preparing an accumulation", || {
            Accumulator::assembled(clipper, &buffers.all, (&joint, &parts), clip, pass)
        })?
    }

    fn assembled(
        clipper: &Clipper,
        buffers: &[wgpu::Buffer],
        (joint, parts): (&Joint, &Segments),
        clip: &Clip,
        pass: Option<Pass>,
    ) -> Result<Accumulator, PrepareError> {
        let mut make = Make::new(clipper, buffers, clip);
        let (row, tensor): (JointRow, JointTensor) =
            (bytemuck::Zeroable::zeroed(), bytemuck::Zeroable::zeroed());
        let rows = make.table("gradclip joint chunks", &joint.rows, row, Usage::STORAGE)?;
        let tensors = make.table("gradclip tensors", &joint.tensors, tensor, Usage::STORAGE)?;
        // Read by other joint kernels only, but bound by all.
        let hyper = make.hyper(bytemuck::Zeroable::zeroed())?;
        // All zeros keep gradients as they are.
        let decided = parts.decided() as usize;
        let plain = make.empty::<Outcome>("gradclip plain outcomes", decided, Usage::STORAGE);
        let outcomes = pass.as_ref().map_or(&plain, Pass::outcomes);
        let tables = [&hyper, &hyper, &rows, &tensors, outcomes];
        let mut steps = |begins| -> Result<Vec<Step>, PrepareError> {
            joint.dispatches.iter().map(|d| make.joint(Kernel::Accumulate, d, begins, &tables)).collect()
        };
        let (first, next) = (steps(true)?, steps(false)?);
        make.compile()?;
        Ok(Accumulator { pass, first, next })
    }

    /// Records the first micro-batch: accumulators are overwritten.
    pub fn record_first(&self, encoder: &mut wgpu::CommandEncoder) {
        self.record(encoder, &self.first);
    }

    /// Records another micro-batch: it is added.
    pub fn record_next(&self, encoder: &mut wgpu::CommandEncoder) {
        self.record(encoder, &self.next);
    }

    fn record(&self, encoder: &mut wgpu::CommandEncoder, steps: &[Step]) {
        let mut pass = begin(encoder, "gradclip accumulate");
        if let Some(clip) = &self.pass {
            clip.dispatch_joined(clip.decision(), &mut pass);
        }
        run(steps, &mut pass);
    }

    /// The clip of each micro-batch, for its read-backs and buffers.
    pub fn pass(&self) -> Option<&Pass> {
        self.pass.as_ref()
    }

    /// As [`Accumulator::pass`], to change thresholds.
    pub fn pass_mut(&mut self) -> Option<&mut Pass> {
        self.pass.as_mut()
    }

    /// Number of dispatches that one micro-batch records.
    pub fn dispatch_count(&self) -> usize {
        let clip = self.pass.as_ref().map_or(0, |p| p.decision().joined.len());
        clip + self.next.len()
    }
}

/// A gradient with its accumulator.
fn joined(grad: &Grad, buffers: &mut Buffers) -> Result<Joined, PrepareError> {
    let Some((buffer, offset)) = &grad.accumulator else {
        let (tensor, required) = (grad.name.clone(), "an accumulator".into());
        return Err(ClipError::Tensor { tensor, required, given: "none".into() }.into());
    };
    if grad.elements() > 0 {
        check_usage(grad, &grad.buffer)?;
        check_usage(grad, buffer)?;
    }
    let gradient = buffers.gradient(grad);
    let beside = vec![buffers.beside(grad, "accumulator", DType::F32, (buffer, *offset))];
    Ok(Joined { gradient, beside, lr_scale: 1.0, weight_decay: 0.0 })
}
