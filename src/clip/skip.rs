//! Steps that are left out although all their gradients are finite.

use crate::error::ClipError;
use crate::layout::{
    SKIP_FORGETS, SKIP_GIVES_UP, SKIP_LETS_ALL, SKIP_LETS_THROUGH, SKIP_LOSS, SKIP_NON_FINITE, Skipping,
};

use super::adapt::Adapt;

/// When a whole step is left out although it is finite: a spike. Gradients, parameters, moments and adaptive thresholds then stay as they
/// are, the step does not count as one of the optimiser's, every outcome is flagged
/// ([`SPIKE`](crate::records::SPIKE)), and the report says why ([`SkipReport`](crate::SkipReport)). Decided on the device, whatever
/// rule, scope and threshold the clip has, from the norm of the whole set before it is clipped: the norm of unscaled gradients, excluded ones
/// left out.
///
/// There are two ways to tell a spike, which may be used together. A *bound* ([`Skip::above`]) is compared with the norm, as Megatron's
/// `grad_norm_skip_threshold` and Optax' `skip_large_updates`. A *z-score* ([`Skip::z_score`]) compares it with the norms before it,
/// and perhaps the loss ([`Skip::with_loss`]) with the losses before it, as OLMo-core's `SkipStepOptimizer` and MaxText:
/// x − mean > σ · deviation, of the last `window` values, whose deviation divides by their number less one.
///
/// The z-score is computed in integers from values cut to units of at most 2^-22 of the largest magnitude among them, then rounded to `f32` four
/// times: a decision is that of exact arithmetic where both sides differ by more than (1 + σ) · 2^-22 of that magnitude, and the same on every device.
/// Where all values are alike, any larger one is a spike.
///
/// Gradients count as not finite here where those are that the clip limits: not parameters, nor excluded groups.
///
/// ```
/// use gradclip::{Clip, History, Skip, cpu::{self, GradMut}};
///
/// let clip = Clip::global_norm(1.0).skip(Skip::z_score(6.0).window(4).above(1e4));
/// let mut history = History::default();
/// for norm in [5.0f32, 6.0, 5.5, 6.5, 90.0] {
///     let mut g = [norm];
///     let report = cpu::clip_with(&mut [GradMut::new("g", &mut g)], &clip, &mut history)?;
///     let spike = report.skip.is_some_and(|skip| skip.norm);
///     assert_eq!(spike, norm == 90.0);
///     assert_eq!(g[0], if spike { 90.0 } else { 1.0 });
/// }
/// # Ok::<(), gradclip::ClipError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Skip {
    /// A step whose norm exceeds this is left out; none for infinity, which it is unless set.
    #[cfg_attr(feature = "serde", serde(with = "crate::clip::number"))]
    pub above: f64,
    /// Standard deviations above the mean from which on a step is left out; none where no series is watched.
    pub sigma: Option<f32>,
    /// Values of earlier steps that mean and deviation are of, 128 unless set.
    pub window: u32,
    /// Values, this step's among them, from which on z-scores decide: half of the window unless set, and at least 3.
    pub first: Option<u32>,
    /// Whether the loss is watched as well as the norm.
    pub loss: bool,
    /// Which values come into a series. All finite ones unless set.
    pub remembers: Remembers,
    /// Steps in a row that are left out, for a spike or for what is not finite, before the rule gives up; no limit unless set.
    pub max_consecutive: Option<u32>,
    /// What giving up is.
    pub give_up: GiveUp,
}

/// Which values [`Skip::z_score`] compares later ones with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Remembers {
    /// Those of every step whose gradients and loss are finite, also where it was left out: so a new level of norms is a spike for
    /// a few steps, and then the level.
    #[default]
    Finite,
    /// Those of steps that went through: spikes stay spikes however often they come, and a new level of norms is never reached but by
    /// giving up.
    Passed,
    /// Every value, as OLMo-core has it: for as long as one that is not finite is among them, all steps are left out.
    All,
}

/// What [`Skip`] does after [`Skip::max_consecutive`] steps that were left out in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum GiveUp {
    /// Goes on leaving steps out, and says so: [`SkipReport::gave_up`](crate::SkipReport::gave_up) and, on the device,
    /// [`Progress::reasons`](crate::records::Progress::reasons).
    #[default]
    Tell,
    /// Lets spikes through, clipped as any other step, until a step comes that is none. What is not finite is left out all the same.
    LetThrough,
    /// Lets steps through that are not finite, too, as Optax' `apply_if_finite`: all gradients of a segment with what is not finite are NaN
    /// then, and so is what an optimiser moves by them. Refused beside a [`LossScale`](crate::LossScale), which overflows by design.
    LetAllThrough,
}

/// Least and most values of a series.
const WINDOWS: std::ops::RangeInclusive<u32> = 2..=Adapt::LARGEST_WINDOW;
/// Beyond, a value of any window may be nearer than its rounding.
const MOST_SIGMA: f32 = 1_048_576.0;

impl Skip {
    /// Leaves out no step that is finite: for [`Skip::max_consecutive`], which counts those that are not.
    pub fn non_finite() -> Skip {
        Skip {
            above: f64::INFINITY,
            sigma: None,
            window: 128,
            first: None,
            loss: false,
            remembers: Remembers::Finite,
            max_consecutive: None,
            give_up: GiveUp::Tell,
        }
    }

    /// Leaves out steps whose norm lies more than `sigma` standard deviations above the mean of the last 128.
    pub fn z_score(sigma: f32) -> Skip {
        Skip { sigma: Some(sigma), ..Skip::non_finite() }
    }

    /// Leaves out steps whose norm exceeds `norm`.
    #[must_use]
    pub fn above(self, norm: impl Into<f64>) -> Skip {
        Skip { above: norm.into(), ..self }
    }

    /// Sets how many values of earlier steps mean and deviation are of.
    #[must_use]
    pub fn window(self, window: u32) -> Skip {
        Skip { window, ..self }
    }

    /// Sets from how many values on z-scores decide, this step's among them.
    #[must_use]
    pub fn first(self, first: u32) -> Skip {
        Skip { first: Some(first), ..self }
    }

    /// Watches the loss as well: the first word of [`Pass::inputs`](crate::Pass::inputs), which a shader of the program's own writes before
    /// each step, and [`History::set_loss`](crate::History::set_loss) on the CPU path. A loss that is not finite is a spike.
    #[must_use]
    pub fn with_loss(self) -> Skip {
        Skip { loss: true, ..self }
    }

    /// Sets which values come into a series.
    #[must_use]
    pub fn remembers(self, remembers: Remembers) -> Skip {
        Skip { remembers, ..self }
    }

    /// Sets how many steps in a row are left out, and what happens then.
    #[must_use]
    pub fn max_consecutive(self, steps: u32, give_up: GiveUp) -> Skip {
        Skip { max_consecutive: Some(steps), give_up, ..self }
    }

    /// Whether what it does depends on steps before this one.
    pub(super) fn counts(&self) -> bool {
        self.sigma.is_some() || self.max_consecutive.is_some()
    }

    /// Whether steps that are not finite may go through.
    pub(crate) fn lets_all_through(&self) -> bool {
        self.max_consecutive.is_some() && self.give_up == GiveUp::LetAllThrough
    }

    fn first_decision(&self) -> u32 {
        self.first.unwrap_or((self.window / 2).max(3))
    }

    pub(super) fn validate(self) -> Result<(), ClipError> {
        let error = |what, required, given| Err(ClipError::Skip { what, required, given });
        let single = self.above as f32;
        if self.above.is_nan() || self.above < 0.0 || (single.is_infinite() && self.above.is_finite()) {
            return error("bound of the norm", "0 to 3.4e38, or infinity for none", self.above);
        }
        if self.loss && self.sigma.is_none() {
            return error("watching the loss", "a z-score", 0.0);
        }
        let Some(sigma) = self.sigma else { return Ok(()) };
        if !(0.0..=MOST_SIGMA).contains(&sigma) {
            return error("sigma", "0 to 2^20", sigma.into());
        }
        if !WINDOWS.contains(&self.window) {
            return error("window", "2 to 65536 values", self.window.into());
        }
        let first = self.first_decision();
        if !(3..=self.window + 1).contains(&first) {
            return error("first decision", "3 values or more, at most one above the window", first.into());
        }
        Ok(())
    }

    /// The constants that the kernel uses; all zeros where no step is left out.
    pub(crate) fn of(skip: Option<Skip>) -> Skipping {
        skip.map_or(bytemuck::Zeroable::zeroed(), |skip| skip.record())
    }

    /// The same of one.
    pub(crate) fn record(self) -> Skipping {
        let set = |is: bool, flag: u32| if is { flag } else { 0 };
        Skipping {
            // -0 compares as a huge integer.
            above: self.above.abs() as f32,
            sigma: self.sigma.map_or(0.0, f32::abs),
            window: if self.sigma.is_some() { self.window } else { 0 },
            first: self.first_decision(),
            most: self.max_consecutive.unwrap_or(0),
            flags: set(self.loss, SKIP_LOSS)
                | set(self.remembers == Remembers::Passed, SKIP_FORGETS)
                | set(self.remembers == Remembers::All, SKIP_NON_FINITE)
                | set(self.max_consecutive.is_some(), SKIP_GIVES_UP)
                | set(self.give_up != GiveUp::Tell, SKIP_LETS_THROUGH)
                | set(self.lets_all_through(), SKIP_LETS_ALL),
        }
    }
}
