//! Sums of micro-batches.

use wgpu::BufferUsages as Usage;

use crate::clip::Clip;
use crate::error::{ClipError, PrepareError, ReadBackError};
use crate::grad::Grad;
use crate::history::History;
use crate::kernels::Kernel;
use crate::layout::{FusedRow, FusedTensor, Outcome};
use crate::plan::{FusedPlan, Operands};
use crate::segments::Segments;
use crate::tensor::{DType, TensorInfo};

use super::clipper::Clipper;
use super::make::{Make, Step, Wanted};
use super::mapped::ReadBack;
use super::pass::{Pass, begin, run};
use super::placements::{Buffers, check_usage};
use super::purpose::Purpose;
use super::shares_pass::shares_pass;

const LABEL: &str = "gradclip accumulate";

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
    pub(super) first: Vec<Step>,
    pub(super) next: Vec<Step>,
}

/// Adds clipped gradients of micro-batches into `f32` accumulators: *clip, then accumulate*, see [`Accumulator`]. What a
/// [`Pass`] has, thresholds, reports and history, it has too.
#[derive(Debug)]
pub struct ClippedAccumulator {
    pass: Pass,
    sums: Accumulator,
}

impl Clipper {
    /// As [`Clipper::prepare_accumulation`], in the form of [`Clipper::prepare_async`].
    ///
    /// # Errors
    ///
    /// As [`Clipper::prepare_accumulation`].
    pub async fn prepare_accumulation_async(&self, grads: &[Grad]) -> Result<Accumulator, PrepareError> {
        Accumulator::new(self, grads, &Clip::measure(), None).await
    }

    /// As [`Clipper::prepare_clipped_accumulation`], in the form of [`Clipper::prepare_async`].
    ///
    /// # Errors
    ///
    /// As [`Clipper::prepare_clipped_accumulation`].
    pub async fn prepare_clipped_accumulation_async(
        &self,
        grads: &[Grad],
        clip: &Clip,
    ) -> Result<ClippedAccumulator, PrepareError> {
        let pass = self.prepared(grads, clip, Purpose::ReadOnly, None).await?;
        let sums = Accumulator::new(self, grads, clip, Some(&pass)).await?;
        Ok(ClippedAccumulator { pass, sums })
    }
}

impl Accumulator {
    async fn new(
        clipper: &Clipper,
        grads: &[Grad],
        clip: &Clip,
        pass: Option<&Pass>,
    ) -> Result<Accumulator, PrepareError> {
        let mut buffers = Buffers::default();
        let operands = grads.iter().map(|g| operands(g, &mut buffers)).collect::<Result<Vec<_>, _>>()?;
        let infos: Vec<TensorInfo> = grads.iter().map(Grad::info).collect();
        let parts = Segments::new(&infos, clip)?;
        let fused = FusedPlan::new(&operands, &parts, &clipper.plan_limits())?;
        clipper
            .ready("preparing an accumulation", || {
                Accumulator::assembled(clipper, &buffers.all, (&fused, &parts), clip, pass)
            })
            .await
    }

    fn assembled(
        clipper: &Clipper,
        buffers: &[wgpu::Buffer],
        (fused, parts): (&FusedPlan, &Segments),
        clip: &Clip,
        pass: Option<&Pass>,
    ) -> Result<(Accumulator, Wanted), PrepareError> {
        let mut make = Make::new(clipper, buffers, clip);
        let (row, tensor): (FusedRow, FusedTensor) =
            (bytemuck::Zeroable::zeroed(), bytemuck::Zeroable::zeroed());
        let rows = make.table("gradclip fused chunks", &fused.rows, row, Usage::STORAGE)?;
        let tensors = make.table("gradclip tensors", &fused.tensors, tensor, Usage::STORAGE)?;
        // Read by other fused kernels only, but bound by all.
        let hyper = make.hyper(bytemuck::Zeroable::zeroed())?;
        // All zeros keep gradients as they are.
        let decided = parts.decided() as usize;
        let plain = make.empty::<Outcome>("gradclip plain outcomes", decided, Usage::STORAGE);
        let outcomes = pass.map_or(&plain, Pass::outcomes);
        let tables = [&hyper, &hyper, &rows, &tensors, outcomes];
        let mut steps = |begins| -> Result<Vec<Step>, PrepareError> {
            fused.dispatches.iter().map(|d| make.fused(Kernel::Accumulate, d, begins, &tables)).collect()
        };
        let (first, next) = (steps(true)?, steps(false)?);
        Ok((Accumulator { first, next }, make.wanted))
    }

    /// Records the first micro-batch: accumulators are overwritten.
    pub fn record_first(&self, encoder: &mut wgpu::CommandEncoder) {
        run(&self.first, &mut begin(encoder, LABEL));
    }

    /// Records another micro-batch: it is added.
    pub fn record_next(&self, encoder: &mut wgpu::CommandEncoder) {
        run(&self.next, &mut begin(encoder, LABEL));
    }

    /// Number of dispatches that one micro-batch records.
    pub fn dispatch_count(&self) -> usize {
        self.next.len()
    }
}

impl ClippedAccumulator {
    /// Records the first micro-batch: it is clipped, and accumulators are overwritten.
    pub fn record_first(&self, encoder: &mut wgpu::CommandEncoder) {
        self.record(encoder, &self.sums.first);
    }

    /// Records another micro-batch: it is clipped and added.
    pub fn record_next(&self, encoder: &mut wgpu::CommandEncoder) {
        self.record(encoder, &self.sums.next);
    }

    fn record(&self, encoder: &mut wgpu::CommandEncoder, sums: &[Step]) {
        let mut pass = begin(encoder, LABEL);
        self.pass.dispatch_together(self.pass.decision(), &mut pass);
        run(sums, &mut pass);
    }

    /// Number of dispatches that one micro-batch records.
    pub fn dispatch_count(&self) -> usize {
        self.pass.decision().together.len() + self.sums.dispatch_count()
    }
}

shares_pass!(ClippedAccumulator);

/// A gradient with its accumulator.
fn operands(grad: &Grad, buffers: &mut Buffers) -> Result<Operands, PrepareError> {
    grad.check_summed()?;
    let Some((buffer, offset)) = &grad.accumulator else {
        let (tensor, required) = (grad.name.clone(), "an accumulator".into());
        return Err(ClipError::Tensor { tensor, required, given: "none".into() }.into());
    };
    if grad.elements() > 0 {
        check_usage(grad, &grad.buffer)?;
        check_usage(grad, buffer)?;
    }
    let gradient = buffers.gradient(grad);
    let updated = vec![buffers.operand(grad, "accumulator", DType::F32, (buffer, *offset))];
    Ok(Operands { gradient, updated, lr_scale: 1.0, ..Operands::default() })
}
