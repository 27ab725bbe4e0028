//! The preparation of passes.

use crate::clip::{Clip, Rule};
use crate::error::PrepareError;
use crate::grad::Grad;
use crate::plan::{Placement, Plan};
use crate::tensor::TensorInfo;

use super::clipper::Clipper;
use super::pass::Pass;
use super::placements::{check_usage, placements};
use super::purpose::Purpose;

impl Clipper {
    /// As [`Clipper::prepare`], for programs whose thread must not wait, a web page first of all: there error scopes are answered through the
    /// event loop, so this is the only form, and so it is with all that is prepared. The future is ready when the device has answered and every kernel is compiled.
    ///
    /// On native targets it is ready when it was polled once, and that poll compiles: hand it to a thread that may be busy for so
    /// long. The future can be sent to one.
    ///
    /// A future that is dropped leaves nothing behind but kernels that were compiled.
    ///
    /// ```no_run
    /// # async fn run(device: &gradclip::wgpu::Device, dw: &gradclip::wgpu::Buffer) -> Result<(), gradclip::PrepareError> {
    /// use gradclip::{Clip, Clipper, Grad};
    ///
    /// let clipper = Clipper::new(device)?;
    /// let pass = clipper.prepare_async(&[Grad::new("w", dw)], &Clip::global_norm(1.0)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Clipper::prepare`].
    pub async fn prepare_async(&self, grads: &[Grad], clip: &Clip) -> Result<Pass, PrepareError> {
        self.prepared(grads, clip, Purpose::InPlace, None).await
    }

    /// As [`Clipper::prepare_after`], in the form of [`Clipper::prepare_async`].
    ///
    /// # Errors
    ///
    /// As [`Clipper::prepare_after`].
    pub async fn prepare_after_async(
        &self,
        previous: &Pass,
        grads: &[Grad],
        clip: &Clip,
    ) -> Result<Pass, PrepareError> {
        self.prepared(grads, clip, Purpose::InPlace, Some(previous)).await
    }

    /// As [`Clipper::warm_up`], in the form of [`Clipper::prepare_async`].
    ///
    /// # Errors
    ///
    /// As [`Clipper::warm_up`].
    pub async fn warm_up_async(&self, tensors: &[Placement], clip: &Clip) -> Result<(), PrepareError> {
        let plan = Plan::new(tensors, clip, &self.limits)?;
        self.ready("preparing kernels", || Ok(((), Pass::wanted(self, &plan, clip)?))).await
    }

    pub(super) async fn prepared(
        &self,
        grads: &[Grad],
        clip: &Clip,
        purpose: Purpose,
        previous: Option<&Pass>,
    ) -> Result<Pass, PrepareError> {
        clip.validate()?;
        let agc = matches!(clip.rule, Rule::Agc { .. });
        let infos: Vec<TensorInfo> = grads.iter().map(Grad::info).collect();
        purpose.check(&infos, clip)?;
        if agc {
            let limited = grads.iter().zip(&infos).filter(|(_, info)| !info.excluded());
            limited.map(|(grad, _)| grad).try_for_each(|g| g.check_whole("adaptive gradient clipping"))?;
        }
        for (grad, info) in grads.iter().zip(&infos).filter(|(g, _)| g.elements() > 0) {
            let parameter = grad.parameter.as_ref().filter(|_| agc && !info.excluded()).map(|p| &p.buffer);
            std::iter::once(&grad.buffer).chain(parameter).try_for_each(|b| check_usage(grad, b))?;
        }
        let (placements, buffers) = placements(grads, agc);
        let plan = Plan::new(&placements, clip, &self.limits)?;
        let memory = previous.map(|p| p.memory_for(clip, plan.limit_count())).transpose()?;
        self.ready("preparing buffers and bind groups", || {
            Pass::new(self, grads, &buffers, plan, clip, (purpose, memory))
        })
        .await
    }
}
