//! What to do with a set of gradients, as plain data.

mod adapt;
mod check;
mod loss_scale;
mod noisy;
#[cfg(feature = "serde")]
pub(crate) mod number;
mod rule;
mod skip;
mod summation;
mod words;

pub use adapt::{Adapt, Aggc, Reaction};
pub use loss_scale::LossScale;
pub(crate) use loss_scale::MOST_SCALE;
pub use noisy::NoisyQuantile;
pub use rule::{Axes, NonFinite, NormType, Rule, Scope, Units};
pub use skip::{GiveUp, Remembers, Skip};
pub(crate) use summation::Summation;

use crate::layout::Adaptation;

/// How to clip: rule, norm, scope, threshold, and what surrounds them. The same value drives the GPU
/// and the CPU path.
///
/// ```
/// use gradclip::{Clip, NonFinite, NormType};
///
/// let clip = Clip::global_norm(1.0).norm_type(NormType::Two).on_non_finite(NonFinite::Zero);
/// assert_eq!(clip.threshold, 1.0);
/// assert!(Clip::global_norm(-1.0).validate().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Clip {
    /// C of the [`Rule`], the largest norm allowed. 0 makes every gradient 0; infinity only measures.
    /// Where the threshold adapts, what holds until there is a history.
    ///
    /// Numbers of a clip are `f64` for sets with `f64` gradients. For all others, and on every adapter,
    /// each is rounded to the nearest `f32` once, where the clip is prepared.
    #[cfg_attr(feature = "serde", serde(with = "crate::clip::number"))]
    pub threshold: f64,
    /// What is limited, the norm unless set.
    pub rule: Rule,
    /// Norm type, L2 unless set.
    pub norm: NormType,
    /// What shares one norm, the whole set unless set.
    pub scope: Scope,
    /// A limit on the norm of the whole set along with those of its segments: the smaller coefficient
    /// wins. Excluded groups have no part in it. None unless set.
    #[cfg_attr(feature = "serde", serde(with = "crate::clip::number::optional", default))]
    pub total: Option<f64>,
    /// How the threshold follows the norms of earlier steps; it is fixed unless set.
    pub adapt: Option<Adapt>,
    /// What an adaptive threshold is at least, whatever it follows from, also before there is a history. No bound unless set.
    #[cfg_attr(feature = "serde", serde(with = "crate::clip::number::optional", default))]
    pub at_least: Option<f64>,
    /// What an adaptive threshold is at most. No bound unless set.
    #[cfg_attr(feature = "serde", serde(with = "crate::clip::number::optional", default))]
    pub at_most: Option<f64>,
    /// When a whole step is left out although it is finite; never unless set.
    #[cfg_attr(feature = "serde", serde(default))]
    pub skip: Option<Skip>,
    /// Whether the norm is handed in rather than measured: see [`Clip::use_norm`]. False unless set.
    #[cfg_attr(feature = "serde", serde(default))]
    pub use_norm: bool,
    /// What a non-finite element does.
    pub non_finite: NonFinite,
    /// Gradients are multiplied by this first, in the same passes: 1 / loss scale, or
    /// 1 / accumulation count. 1 unless set. An element that this takes above the largest `f32` (`f64`
    /// for `f64` gradients) counts as non-finite.
    pub unscale: f64,
    /// Lets a clip in place unscale `f16` gradients, of which it then loses what falls below 2^-24 or
    /// loses bits below 2^-14. Refused otherwise, as PyTorch's `GradScaler` refuses it: a step and an
    /// accumulation unscale in `f32` and lose nothing. False unless set.
    #[cfg_attr(feature = "serde", serde(default))]
    pub lossy_unscale: bool,
    /// Divides gradients by a loss scale that follows them, besides. None unless set.
    pub loss_scale: Option<LossScale>,
    /// Added to the norm in the quotient threshold / (norm + eps). 0 unless set; PyTorch has 1e-6.
    /// Gradients whose norm does not exceed the threshold are left alone whatever it is.
    pub eps: f64,
    /// Whether the norm of the result is at most C in exact arithmetic: see [`Clip::never_above`]. Unless
    /// set, it is for [`Scope::Row`] under a norm of type 1, 2 or infinity, where privacy accounting
    /// rests on it, and not elsewhere.
    #[cfg_attr(feature = "serde", serde(default))]
    pub never_above: Option<bool>,
}

impl Clip {
    /// Clips the norm of the whole set to `threshold`: where norm > threshold, every gradient is
    /// multiplied by threshold / norm (Pascanu, Mikolov and Bengio 2013, arXiv 1211.5063).
    pub fn global_norm(threshold: impl Into<f64>) -> Clip {
        Clip {
            threshold: threshold.into(),
            rule: Rule::Norm,
            norm: NormType::Two,
            scope: Scope::Global,
            total: None,
            adapt: None,
            at_least: None,
            at_most: None,
            skip: None,
            use_norm: false,
            non_finite: NonFinite::Skip,
            unscale: 1.0,
            lossy_unscale: false,
            loss_scale: None,
            eps: 0.0,
            never_above: None,
        }
    }

    /// Clips the norm of each tensor to `threshold` by itself.
    pub fn per_tensor_norm(threshold: impl Into<f64>) -> Clip {
        Clip { scope: Scope::Tensor, ..Clip::global_norm(threshold) }
    }

    /// Clips the norm of each [`Group`](crate::Group); `threshold` is that of the tensors without one.
    pub fn per_group_norm(threshold: impl Into<f64>) -> Clip {
        Clip { scope: Scope::Group, ..Clip::global_norm(threshold) }
    }

    /// Clips the norm of each unit of each tensor.
    pub fn per_unit_norm(threshold: impl Into<f64>, units: Units) -> Clip {
        Clip { scope: Scope::Unit(units), ..Clip::global_norm(threshold) }
    }

    /// Clips the norm of row i of all tensors together, for every i: per-example clipping.
    pub fn per_row_norm(threshold: impl Into<f64>) -> Clip {
        Clip { scope: Scope::Row, ..Clip::global_norm(threshold) }
    }

    /// Clamps every element to `[-value, value]`. Norms are the largest magnitudes, tensor by tensor.
    pub fn value(value: impl Into<f64>) -> Clip {
        Clip {
            rule: Rule::Value,
            norm: NormType::Inf,
            non_finite: NonFinite::Keep,
            ..Clip::per_tensor_norm(value)
        }
    }

    /// Limits the root mean square of each tensor.
    pub fn block_rms(threshold: impl Into<f64>) -> Clip {
        Clip { rule: Rule::Rms, ..Clip::per_tensor_norm(threshold) }
    }

    /// Limits the norm of each tensor divided by its number of elements.
    pub fn average_norm(threshold: impl Into<f64>) -> Clip {
        Clip { rule: Rule::Average, ..Clip::per_tensor_norm(threshold) }
    }

    /// Adaptive gradient clipping: the norm of each unit is limited to `clipping` times that of its
    /// parameters, or times 1e-3 where that is larger. Every tensor needs a shape and its parameter.
    pub fn agc(clipping: impl Into<f64>, units: Units) -> Clip {
        Clip { rule: Rule::Agc { eps: 1e-3 }, ..Clip::per_unit_norm(clipping, units) }
    }

    /// Where the norm of the whole set exceeds `magnitude`, every element becomes `magnitude` with its
    /// own sign.
    pub fn sign(magnitude: impl Into<f64>) -> Clip {
        Clip { rule: Rule::Sign, ..Clip::global_norm(magnitude) }
    }

    /// Scales the whole set to the norm `target`, up or down.
    pub fn normalize(target: impl Into<f64>) -> Clip {
        Clip { rule: Rule::Normalize, ..Clip::global_norm(target) }
    }

    /// Automatic clipping for private learning (Bu et al. 2022, arXiv 2206.07136, AUTO-S): row i of all tensors together, an example's gradient,
    /// is multiplied by 1 / (norm + γ), so that there is no threshold to choose. Rows of zeros stay.
    ///
    /// ```
    /// use gradclip::{Clip, cpu::{self, GradMut}};
    ///
    /// let mut g = [30.0f32, 40.0, 0.003, 0.004];
    /// cpu::clip(&mut [GradMut::new("w", &mut g).shape(&[2, 2])], &Clip::automatic(0.01))?;
    /// assert!((g[0] - 0.6).abs() < 2e-4 && (g[2] - 0.2).abs() < 1e-6); // 0.003 / (0.005 + 0.01)
    /// # Ok::<(), gradclip::ClipError>(())
    /// ```
    pub fn automatic(gamma: impl Into<f64>) -> Clip {
        Clip::normalize(1.0).scope(Scope::Row).eps(gamma)
    }

    /// AdaGC with the paper's constants; during its warm-up the norm of the whole set is limited to
    /// `total`.
    pub fn adagc(total: impl Into<f64>) -> Clip {
        Clip {
            total: Some(total.into()),
            adapt: Some(Adapt::adagc()),
            ..Clip::per_tensor_norm(f32::INFINITY)
        }
    }

    /// Measures the norm of the whole set and changes nothing.
    pub fn measure() -> Clip {
        Clip::global_norm(f32::INFINITY)
    }

    /// PyTorch's eps of 1e-6, with which `torch.nn.utils.clip_grad_norm_` divides: max_norm /
    /// (norm + 1e-6).
    pub const PYTORCH_EPS: f64 = 1e-6;

    /// Global norm clipping with PyTorch's eps. Unlike PyTorch, gradients whose norm does not exceed
    /// the threshold keep every bit.
    ///
    /// ```
    /// use gradclip::{Clip, cpu::{self, GradMut}};
    ///
    /// let mut g = [3.0e-6f32, 4.0e-6];
    /// cpu::clip(&mut [GradMut::new("g", &mut g)], &Clip::pytorch(1e-6))?;
    /// assert!((g[0] / 0.5e-6 - 1.0).abs() < 1e-6); // 3e-6 * 1e-6 / (5e-6 + 1e-6)
    /// # Ok::<(), gradclip::ClipError>(())
    /// ```
    pub fn pytorch(threshold: impl Into<f64>) -> Clip {
        Clip::global_norm(threshold).eps(Clip::PYTORCH_EPS)
    }

    /// Sets the norm type.
    #[must_use]
    pub fn norm_type(self, norm: NormType) -> Clip {
        Clip { norm, ..self }
    }

    /// Sets what a non-finite element does.
    #[must_use]
    pub fn on_non_finite(self, non_finite: NonFinite) -> Clip {
        Clip { non_finite, ..self }
    }

    /// Sets the factor that gradients are multiplied by first.
    #[must_use]
    pub fn unscale(self, unscale: impl Into<f64>) -> Clip {
        Clip { unscale: unscale.into(), ..self }
    }

    /// Scales the loss: see [`LossScale`].
    ///
    /// ```
    /// use gradclip::{Clip, History, LossScale, cpu::{self, GradMut}};
    ///
    /// let clip = Clip::global_norm(1.0).loss_scale(LossScale::default().initial(1024.0));
    /// let mut history = History::default();
    /// let scale = history.loss_scale(&clip);
    /// let mut g = [0.5 * scale, f32::INFINITY]; // what the scaled loss gave
    /// let report = cpu::clip_with(&mut [GradMut::new("g", &mut g)], &clip, &mut history)?;
    /// assert_eq!(report.skipped_steps, 1);
    /// assert_eq!(history.loss_scale(&clip), 512.0);
    /// # Ok::<(), gradclip::ClipError>(())
    /// ```
    #[must_use]
    pub fn loss_scale(self, scale: LossScale) -> Clip {
        Clip { loss_scale: Some(scale), ..self }
    }

    /// Sets what is added to the norm in the quotient.
    #[must_use]
    pub fn eps(self, eps: impl Into<f64>) -> Clip {
        Clip { eps: eps.into(), ..self }
    }

    /// Sets what is limited.
    #[must_use]
    pub fn rule(self, rule: Rule) -> Clip {
        Clip { rule, ..self }
    }

    /// Sets what shares one norm.
    #[must_use]
    pub fn scope(self, scope: Scope) -> Clip {
        Clip { scope, ..self }
    }

    /// Limits the norm of the whole set too: its norm before the segments are clipped, so that the spike of one tensor makes
    /// all others smaller, also where that tensor's own limit would have sufficed.
    #[must_use]
    pub fn total(self, threshold: impl Into<f64>) -> Clip {
        Clip { total: Some(threshold.into()), ..self }
    }

    /// Lets a clip in place unscale `f16` gradients although that loses small ones.
    #[must_use]
    pub fn lossy_unscale(self, lossy: bool) -> Clip {
        Clip { lossy_unscale: lossy, ..self }
    }

    /// Promises that the norm of the result is at most C in exact arithmetic, whatever the element type:
    /// the norm that is compared is rounded up, coefficients down, and products towards zero. A norm within
    /// 2^-22 of C, relatively, may count as above it. Under [`Rule::Rms`], [`Rule::Average`] and
    /// [`Rule::Agc`] the same holds of what these limit, and of [`Clip::total`]; value clipping stays within
    /// `[-C, C]` in any case. Costs integer arithmetic for each element that changes.
    ///
    /// ```
    /// use gradclip::{Clip, cpu::{self, GradMut}};
    /// use half::bf16;
    ///
    /// let mut g = [bf16::ONE; 1000];
    /// cpu::clip(&mut [GradMut::bf16("g", &mut g)], &Clip::global_norm(1.0).never_above(true))?;
    /// let squares: f64 = g.iter().map(|x| f64::from(*x).powi(2)).sum(); // exact: few bits each
    /// assert!(squares <= 1.0);
    /// # Ok::<(), gradclip::ClipError>(())
    /// ```
    #[must_use]
    pub fn never_above(self, never_above: bool) -> Clip {
        Clip { never_above: Some(never_above), ..self }
    }

    /// Whether a step depends on those before it.
    pub(crate) fn remembers(&self) -> bool {
        self.adapt.is_some()
            || self.loss_scale.is_some()
            || self.use_norm
            || self.skip.is_some_and(|skip| skip.counts())
    }

    /// Whether the whole set has a limit besides those of its segments.
    pub(crate) fn limits_total(&self) -> bool {
        self.total.is_some() || matches!(self.adapt, Some(Adapt::AdaGc { .. }))
    }

    /// The constants of its adaptive threshold.
    pub(crate) fn adaptation(&self) -> Adaptation {
        let bound = |bound: Option<f64>, none: f32| bound.map_or(none, |bound| bound.abs() as f32);
        Adapt::record(self.adapt, (bound(self.at_least, 0.0), bound(self.at_most, f32::INFINITY)))
    }

    /// Whether gradients are multiplied by something before they are clipped.
    pub(crate) fn unscales(&self) -> bool {
        self.unscale as f32 != 1.0 || self.loss_scale.is_some()
    }

    /// Whether the norm of the result must not exceed C by any rounding.
    pub(crate) fn is_never_above(&self) -> bool {
        let exact = !matches!(Summation::from(self.norm), Summation::P(_));
        self.never_above.unwrap_or(self.scope == Scope::Row && exact)
    }

    /// Lets the threshold follow the norms of earlier steps.
    #[must_use]
    pub fn adapt(self, adapt: Adapt) -> Clip {
        Clip { adapt: Some(adapt), ..self }
    }

    /// Bounds an adaptive threshold from below. Rules that remember norms as they were clipped remember what this leaves.
    #[must_use]
    pub fn at_least(self, threshold: impl Into<f64>) -> Clip {
        Clip { at_least: Some(threshold.into()), ..self }
    }

    /// Bounds an adaptive threshold from above: what the loudest stretch of a run may do to it.
    ///
    /// ```
    /// use gradclip::{Adapt, Clip, History, cpu::{self, GradMut}};
    ///
    /// let clip = Clip::global_norm(1.0).adapt(Adapt::autoclip(50.0)).at_least(0.5).at_most(2.0);
    /// let mut history = History::default();
    /// for (norm, threshold) in [(3.0f32, 2.0f32), (0.1, 1.55), (0.1, 0.5)] {
    ///     cpu::clip_with(&mut [GradMut::new("g", &mut [norm])], &clip, &mut history)?;
    ///     assert_eq!(history.thresholds(), [threshold]);
    /// }
    /// # Ok::<(), gradclip::ClipError>(())
    /// ```
    #[must_use]
    pub fn at_most(self, threshold: impl Into<f64>) -> Clip {
        Clip { at_most: Some(threshold.into()), ..self }
    }

    /// Takes the norm of the set from the program instead of measuring it, as `use_norm` of TensorFlow's `clip_by_global_norm`: the
    /// second word of [`Pass::inputs`](crate::Pass::inputs), which lies on the device, or [`History::set_norm`](crate::History::set_norm). It is
    /// the norm of gradients as they lie, before they are unscaled. Gradients are then read once less: nothing is known of their
    /// elements, tensors have no norms in a report, and what is not finite is found by the norm alone. A negative norm is none, and
    /// counts as NaN.
    ///
    /// ```
    /// use gradclip::{Clip, History, cpu::{self, GradMut}};
    ///
    /// let clip = Clip::global_norm(1.0).use_norm(true);
    /// let mut history = History::default();
    /// history.set_norm(50.0); // of these and of others that lie elsewhere
    /// let mut g = [3.0f32, 4.0];
    /// let report = cpu::clip_with(&mut [GradMut::new("g", &mut g)], &clip, &mut history)?;
    /// assert_eq!((g, report.norm()), ([0.06, 0.08], Some(50.0)));
    /// # Ok::<(), gradclip::ClipError>(())
    /// ```
    #[must_use]
    pub fn use_norm(self, use_norm: bool) -> Clip {
        Clip { use_norm, ..self }
    }

    /// Leaves out steps that are spikes: see [`Skip`].
    #[must_use]
    pub fn skip(self, skip: Skip) -> Clip {
        Clip { skip: Some(skip), ..self }
    }
}
