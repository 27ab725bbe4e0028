//! Thresholds that follow the norms of earlier steps.

use crate::error::ClipError;
use crate::layout::{
    ADAPT_ADAGC, ADAPT_AGGC, ADAPT_AVERAGE, ADAPT_MEAN, ADAPT_NONE, ADAPT_PERCENTILE, ADAPT_QUANTILE,
    ADAPT_ZSCORE, Adaptation, REACTION_FROM_ZERO, REACTION_MAX, REACTION_MEAN, REACTION_PAST,
    REACTION_RECIPROCAL,
};

use super::noisy::NoisyQuantile;

/// How a threshold is found from the norms of earlier steps, on the device and without a host read.
/// Each segment has a history of its own. Until there is one, [`Clip::threshold`](crate::Clip) holds.
///
/// Norms are those of the unscaled gradients, before clipping unless said otherwise, at most
/// `f32::MAX`. A step whose segment has a non-finite element leaves the history as it is. All of it is
/// computed with correctly rounded `f32` operations, on the GPU by integer code: the same history
/// gives the same threshold everywhere, to the bit.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Adapt {
    /// `factor` times the mean of the last `window` norms, this step's not among them.
    Mean {
        /// At least 0 and finite.
        factor: f32,
        /// 1 to [`LARGEST_WINDOW`](Adapt::LARGEST_WINDOW) norms.
        window: u32,
    },
    /// `factor` times the exponential average m ← decay · m + (1 − decay) · norm, which begins with
    /// the first norm; this step's comes in afterwards.
    Average {
        /// At least 0 and finite.
        factor: f32,
        /// From 0 to below 1.
        decay: f32,
    },
    /// AutoClip (Seetharaman et al. 2020, arXiv 2007.14469): a percentile of the last `window` norms,
    /// this step's among them, interpolated linearly as numpy does.
    Percentile {
        /// 0 to 100; 10 in the paper.
        percentile: f32,
        /// 1 to [`LARGEST_WINDOW`](Adapt::LARGEST_WINDOW) norms. The paper keeps all.
        window: u32,
    },
    /// The same of the `window` norms before this step's, as the package autoclip has it: a spike then has no part in its own threshold.
    PastPercentile {
        /// 0 to 100.
        percentile: f32,
        /// 1 to [`LARGEST_WINDOW`](Adapt::LARGEST_WINDOW) norms.
        window: u32,
    },
    /// ZClip (Kumar et al. 2025, arXiv 2504.02507): where the norm lies more than `z` standard
    /// deviations σ above the mean μ, it is reduced. μ and σ² are the first `warm_up` norms' own, then
    /// exponential averages of the clipped norms. σ² saturates at `f32::MAX`, for norms near 1e19.
    ZScore {
        /// From 0 to below 1; 0.97 in the paper.
        decay: f32,
        /// Above 0 and finite; 2.5 in the paper.
        z: f32,
        /// 1 to [`LARGEST_WINDOW`](Adapt::LARGEST_WINDOW) steps; 25 in the paper.
        warm_up: u32,
        /// What a norm is reduced to.
        reaction: Reaction,
    },
    /// AdaGC (Wang et al. 2025, arXiv 2502.11034), each tensor or group by itself: `factor` times γ, the
    /// exponential average γ ← decay · γ + (1 − decay) · clipped norm. During `warm_up` steps only
    /// [`Clip::total`](crate::Clip) limits, no bound of thresholds does, and γ is the least clipped norm so far.
    AdaGc {
        /// λ_rel, above 0 and finite; 1.05 in the paper.
        factor: f32,
        /// β, from 0 to below 1; 0.98 in the paper.
        decay: f32,
        /// 0 or more steps; 100 in the paper.
        warm_up: u32,
    },
    /// Andrew et al. 2021 (arXiv 1905.03871): C ← C exp(−rate · (b − quantile)), b the share of
    /// segments whose norm did not exceed C. Begins with [`Clip::threshold`](crate::Clip), which must be
    /// above 0 and finite. No noise is added to b: [`Adapt::NoisyQuantile`] does that.
    Quantile {
        /// γ, 0 to 1; 0.5 is the median.
        quantile: f32,
        /// η, 0 to 16; 0.2 in the paper.
        rate: f32,
    },
    /// The same with noise on b, so that a threshold that follows from examples tells little of any.
    NoisyQuantile(NoisyQuantile),
    /// AGGC (Li, Wu and Chang 2026, arXiv 2601.11864): each norm is kept within an interval around its average.
    Aggc(Aggc),
}

/// What [`Adapt::ZScore`] reduces a norm of z-score s above z to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Reaction {
    /// The mean.
    Mean,
    /// z standard deviations above the mean.
    Max,
    /// z / (s / z) standard deviations above the mean: the larger the spike, the less of it stays.
    #[default]
    Reciprocal,
}

/// [`Adapt::Aggc`]: a norm n above U = `high` · S is reduced to U, one below L = max(`min_norm`, `low` · S) is raised to L, and S ← `decay` · S +
/// (1 − `decay`) · the norm that this leaves. S is the average before this step, and begins
/// with what is left of the first norm. Nothing is raised above U, nor above [`Clip::at_most`](crate::Clip::at_most).
///
/// ```
/// use gradclip::{Adapt, Aggc, Clip, History, cpu::{self, GradMut}};
///
/// let clip = Clip::global_norm(f32::INFINITY).adapt(Adapt::Aggc(Aggc::new(0.5, 2.0, 0.9)));
/// let mut history = History::default();
/// let mut left = Vec::new();
/// for norm in [1.0f32, 8.0, 0.25] {
///     let mut g = [norm];
///     cpu::clip_with(&mut [GradMut::new("g", &mut g)], &clip, &mut history)?;
///     left.push(g[0]);
/// }
/// assert_eq!(left[..2], [1.0, 2.0]); // at most twice the average of 1
/// assert!((left[2] - 0.55).abs() < 1e-6); // at least half of the average, which is 1.1 by now
/// # Ok::<(), gradclip::ClipError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Aggc {
    /// Norms below so much of the average are raised; 0 for none. At least 0 and at most `high`.
    pub low: f32,
    /// Norms above so much of the average are reduced. At least 0 and finite.
    pub high: f32,
    /// β, from 0 to below 1.
    pub decay: f32,
    /// Norms below this are raised to it whatever the average is; 0 unless set.
    pub min_norm: f32,
    /// The largest factor that a norm is raised by; any unless set, which is 0.
    pub max_up_scale: f32,
    /// The smallest factor that a norm is reduced by; 0 unless set.
    pub max_down_scale: f32,
    /// Whether the average begins at 0, without a correction, as the authors' program has it: the first step is then left alone, and
    /// those after it are cut to a small share of their norms. False unless set.
    pub from_zero: bool,
}

impl Aggc {
    /// Within `low` and `high` times the average.
    pub fn new(low: f32, high: f32, decay: f32) -> Aggc {
        Aggc { low, high, decay, min_norm: 0.0, max_up_scale: 0.0, max_down_scale: 0.0, from_zero: false }
    }

    /// Sets the norm that smaller ones are raised to whatever the average is.
    #[must_use]
    pub fn min_norm(self, norm: f32) -> Aggc {
        Aggc { min_norm: norm, ..self }
    }

    /// Sets the smallest and the largest factor.
    #[must_use]
    pub fn scales(self, max_down: f32, max_up: f32) -> Aggc {
        Aggc { max_down_scale: max_down, max_up_scale: max_up, ..self }
    }

    /// Lets the average begin at 0.
    #[must_use]
    pub fn from_zero(self, from_zero: bool) -> Aggc {
        Aggc { from_zero, ..self }
    }

    /// Whether any norm is raised.
    pub(super) fn raises(self) -> bool {
        self.low > 0.0 || self.min_norm > 0.0
    }

    fn validate(self) -> Result<(), ClipError> {
        let finite = 0.0..=f32::MAX;
        let checks = [
            ("high", "0 or more and finite", self.high, finite.clone()),
            ("low", "0 or more, at most `high`", self.low, 0.0..=self.high),
            ("least norm", "0 or more and finite", self.min_norm, finite.clone()),
            ("largest factor", "0 for any, or 1 or more and finite", self.max_up_scale, finite),
            ("smallest factor", "0 to 1", self.max_down_scale, 0.0..=1.0),
        ];
        let too_small = self.max_up_scale > 0.0 && self.max_up_scale < 1.0;
        let wrong = |(i, (.., given, range)): &(usize, &(_, _, f32, std::ops::RangeInclusive<f32>))| {
            !range.contains(given) || (*i == 3 && too_small)
        };
        match checks.iter().enumerate().find(wrong) {
            None => Ok(()),
            Some((_, &(what, required, given, _))) => Err(ClipError::Adapt { what, required, given }),
        }
    }
}

impl Adapt {
    /// Most norms that a history keeps.
    pub const LARGEST_WINDOW: u32 = 1 << 16;

    /// AutoClip with the given percentile over the last 10,000 norms.
    pub fn autoclip(percentile: f32) -> Adapt {
        Adapt::Percentile { percentile, window: 10_000 }
    }

    /// ZClip with the paper's constants.
    pub fn zclip() -> Adapt {
        Adapt::ZScore { decay: 0.97, z: 2.5, warm_up: 25, reaction: Reaction::Reciprocal }
    }

    /// AdaGC with the paper's constants.
    pub fn adagc() -> Adapt {
        Adapt::AdaGc { factor: 1.05, decay: 0.98, warm_up: 100 }
    }

    /// Norms that a history keeps.
    pub(crate) fn window(self) -> u32 {
        match self {
            Adapt::Mean { window, .. }
            | Adapt::Percentile { window, .. }
            | Adapt::PastPercentile { window, .. } => window,
            Adapt::ZScore { warm_up, .. } => warm_up,
            _ => 0,
        }
    }

    pub(crate) fn validate(self) -> Result<(), ClipError> {
        let error = |what, required, given: f32| Err(ClipError::Adapt { what, required, given });
        let (factor, decay) = match self {
            Adapt::Mean { factor, .. } => (factor, 0.0),
            Adapt::Average { factor, decay } | Adapt::AdaGc { factor, decay, .. } => (factor, decay),
            Adapt::ZScore { decay, .. } | Adapt::Aggc(Aggc { decay, .. }) => (1.0, decay),
            _ => (1.0, 0.0),
        };
        if !(factor >= 0.0 && factor.is_finite()) {
            return error("factor", "0 or more and finite", factor);
        }
        if !(0.0..1.0).contains(&decay) {
            return error("decay", "0 or more and below 1", decay);
        }
        let keeps = !matches!(
            self,
            Adapt::Average { .. }
                | Adapt::AdaGc { .. }
                | Adapt::Quantile { .. }
                | Adapt::NoisyQuantile(_)
                | Adapt::Aggc(_)
        );
        if keeps && !(1..=Adapt::LARGEST_WINDOW).contains(&self.window()) {
            return error("window or warm-up", "1 to 65536 norms", self.window() as f32);
        }
        match self {
            Adapt::Percentile { percentile, .. } | Adapt::PastPercentile { percentile, .. }
                if !(0.0..=100.0).contains(&percentile) =>
            {
                error("percentile", "0 to 100", percentile)
            }
            Adapt::Aggc(aggc) => aggc.validate(),
            Adapt::NoisyQuantile(own) => own.validate(),
            Adapt::ZScore { z, .. } if !(z > 0.0 && z.is_finite()) => error("z", "above 0 and finite", z),
            Adapt::Quantile { quantile, .. } if !(0.0..=1.0).contains(&quantile) => {
                error("quantile", "0 to 1", quantile)
            }
            Adapt::Quantile { rate, .. } if !(0.0..=16.0).contains(&rate) => error("rate", "0 to 16", rate),
            _ => Ok(()),
        }
    }

    /// Whether it counts segments rather than remember norms.
    pub(crate) fn counts(self) -> bool {
        matches!(self, Adapt::Quantile { .. } | Adapt::NoisyQuantile(_))
    }

    /// The record that the kernel reads, with what thresholds are at least and at most.
    pub(crate) fn record(adapt: Option<Adapt>, (least, most): (f32, f32)) -> Adaptation {
        let window = adapt.map_or(0, Adapt::window);
        let none = Adaptation { window, least, most, ..bytemuck::Zeroable::zeroed() };
        // -0 compares as a huge integer.
        let of = |rule, a: f32, b: f32| Adaptation { rule, a: a.abs(), b: b.abs(), ..none };
        match adapt {
            None => of(ADAPT_NONE, 0.0, 0.0),
            Some(Adapt::Mean { factor, .. }) => of(ADAPT_MEAN, factor, 0.0),
            Some(Adapt::Average { factor, decay }) => of(ADAPT_AVERAGE, factor, decay),
            Some(Adapt::Percentile { percentile, .. }) => of(ADAPT_PERCENTILE, percentile, 0.0),
            Some(Adapt::PastPercentile { percentile, .. }) => {
                Adaptation { reaction: REACTION_PAST, ..of(ADAPT_PERCENTILE, percentile, 0.0) }
            }
            Some(Adapt::ZScore { decay, z, warm_up, reaction }) => {
                let reaction = match reaction {
                    Reaction::Mean => REACTION_MEAN,
                    Reaction::Max => REACTION_MAX,
                    Reaction::Reciprocal => REACTION_RECIPROCAL,
                };
                Adaptation { steps: warm_up, reaction, ..of(ADAPT_ZSCORE, z, decay) }
            }
            Some(Adapt::AdaGc { factor, decay, warm_up }) => {
                Adaptation { steps: warm_up, ..of(ADAPT_ADAGC, factor, decay) }
            }
            Some(Adapt::Quantile { quantile, rate }) => of(ADAPT_QUANTILE, quantile, rate),
            Some(Adapt::NoisyQuantile(own)) => own.record(none),
            Some(Adapt::Aggc(aggc)) => Adaptation {
                reaction: if aggc.from_zero { REACTION_FROM_ZERO } else { 0 },
                c: aggc.low.abs(),
                d: aggc.min_norm.abs(),
                e: aggc.max_up_scale.abs(),
                f: aggc.max_down_scale.abs(),
                ..of(ADAPT_AGGC, aggc.high, aggc.decay)
            },
        }
    }
}
