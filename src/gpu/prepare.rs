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
#[cfg(not(target_arch = "wasm32"))]
use super::scope::waited;

impl Clipper {
    /// Prepares the clipping of `grads`, to be recorded as often as wanted. Allocates scratch
    /// buffers and bind groups and compiles what is not compiled yet, for which it waits; submits nothing
    /// and waits for nothing that runs on the device.
    ///
    /// Tensors without elements, and no tensors at all, are fine: the norm is 0.
    ///
    /// # Errors
    ///
    /// A clip that does not validate; tensors without the shape or parameter that it needs; a buffer
    /// without usage `STORAGE`; ranges that are unaligned, overlap or leave their buffer; more than the
    /// device's limits can hold; a buffer of another device; memory that ran out; a shader that the
    /// driver refuses.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn prepare(&self, grads: &[Grad], clip: &Clip) -> Result<Pass, PrepareError> {
        waited(self.prepare_async(grads, clip))
    }

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

    /// As [`Clipper::prepare`] for other buffers, or other tensors: the new pass goes on where
    /// `previous` is, counting its steps and with the history of its adaptive thresholds. Both share
    /// them on the device from here on; nothing is copied.
    ///
    /// # Errors
    ///
    /// As [`Clipper::prepare`], and [`ClipError::State`](crate::ClipError::State) where the adaptive threshold, the number of
    /// limits, or what a rule that leaves out steps keeps differs.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn prepare_after(&self, previous: &Pass, grads: &[Grad], clip: &Clip) -> Result<Pass, PrepareError> {
        waited(self.prepare_after_async(previous, grads, clip))
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

    /// Compiles what [`Clipper::prepare`] will need for `tensors` with `clip`, so that it compiles nothing: while
    /// weights are loaded, say, from another thread. Nothing needs to lie on the device yet.
    ///
    /// Kernels depend on how many buffers there are, on element types and on whether there are large, short and
    /// odd tensors among those, not on their exact sizes: [`ClipperOptions::rounded_slots`](crate::ClipperOptions::rounded_slots).
    ///
    /// ```no_run
    /// use gradclip::{Clip, Clipper, DType, Placement};
    ///
    /// # fn run(device: &gradclip::wgpu::Device) -> Result<(), Box<dyn std::error::Error>> {
    /// let clipper = Clipper::new(device)?;
    /// // A model of 148 tensors of bf16, each in a buffer of its own.
    /// let tensor = |buffer| Placement {
    ///     buffer,
    ///     buffer_size: 2 * 768 * 768,
    ///     elements: 768 * 768,
    ///     dtype: DType::Bf16,
    ///     ..Placement::default()
    /// };
    /// let tensors: Vec<Placement> = (0..148).map(tensor).collect();
    /// std::thread::scope(|scope| {
    ///     let warm = scope.spawn(|| clipper.warm_up(&tensors, &Clip::global_norm(1.0)));
    ///     // ... load weights ...
    ///     warm.join().expect("no panic")
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Clipper::prepare`], but for buffers.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn warm_up(&self, tensors: &[Placement], clip: &Clip) -> Result<(), PrepareError> {
        waited(self.warm_up_async(tensors, clip))
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
