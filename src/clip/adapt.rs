//! Thresholds that follow the norms of earlier steps.

use crate::error::ClipError;
use crate::layout::{
    ADAPT_ADAGC, ADAPT_AVERAGE, ADAPT_MEAN, ADAPT_NONE, ADAPT_PERCENTILE, ADAPT_QUANTILE, ADAPT_ZSCORE,
    Adaptation, REACTION_MAX, REACTION_MEAN, REACTION_RECIPROCAL,
};

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
    /// AdaGC (Wang et al. 2025, arXiv 2502.11034), each tensor by itself: `factor` times γ, the
    /// exponential average γ ← decay · γ + (1 − decay) · clipped norm. During `warm_up` steps only
    /// [`Clip::total`](crate::Clip) limits, and γ is the least clipped norm so far.
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
    /// above 0 and finite. No noise is added to b.
    Quantile {
        /// γ, 0 to 1; 0.5 is the median.
        quantile: f32,
        /// η, 0 to 16; 0.2 in the paper.
        rate: f32,
    },
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
            Adapt::Mean { window, .. } | Adapt::Percentile { window, .. } => window,
            Adapt::ZScore { warm_up, .. } => warm_up,
            _ => 0,
        }
    }

    pub(crate) fn validate(self) -> Result<(), ClipError> {
        let error = |what, required, given: f32| Err(ClipError::Adapt { what, required, given });
        let (factor, decay) = match self {
            Adapt::Mean { factor, .. } => (factor, 0.0),
            Adapt::Average { factor, decay } | Adapt::AdaGc { factor, decay, .. } => (factor, decay),
            Adapt::ZScore { decay, .. } => (1.0, decay),
            _ => (1.0, 0.0),
        };
        if !(factor >= 0.0 && factor.is_finite()) {
            return error("factor", "0 or more and finite", factor);
        }
        if !(0.0..1.0).contains(&decay) {
            return error("decay", "0 or more and below 1", decay);
        }
        let keeps = matches!(self, Adapt::Mean { .. } | Adapt::Percentile { .. } | Adapt::ZScore { .. });
        if keeps && !(1..=Adapt::LARGEST_WINDOW).contains(&self.window()) {
            return error("window or warm-up", "1 to 65536 norms", self.window() as f32);
        }
        match self {
            Adapt::Percentile { percentile, .. } if !(0.0..=100.0).contains(&percentile) => {
                error("percentile", "0 to 100", percentile)
            }
            Adapt::ZScore { z, .. } if !(z > 0.0 && z.is_finite()) => error("z", "above 0 and finite", z),
            Adapt::Quantile { quantile, .. } if !(0.0..=1.0).contains(&quantile) => {
                error("quantile", "0 to 1", quantile)
            }
            Adapt::Quantile { rate, .. } if !(0.0..=16.0).contains(&rate) => error("rate", "0 to 16", rate),
            _ => Ok(()),
        }
    }

    /// The record that the kernel reads.
    pub(crate) fn record(adapt: Option<Adapt>) -> Adaptation {
        let window = adapt.map_or(0, Adapt::window);
        let none = Adaptation { rule: ADAPT_NONE, window, steps: 0, reaction: 0, a: 0.0, b: 0.0 };
        match adapt {
            None => none,
            Some(Adapt::Mean { factor, .. }) => Adaptation { rule: ADAPT_MEAN, a: factor, ..none },
            Some(Adapt::Average { factor, decay }) => {
                Adaptation { rule: ADAPT_AVERAGE, a: factor, b: decay, ..none }
            }
            Some(Adapt::Percentile { percentile, .. }) => {
                Adaptation { rule: ADAPT_PERCENTILE, a: percentile, ..none }
            }
            Some(Adapt::ZScore { decay, z, warm_up, reaction }) => {
                let reaction = match reaction {
                    Reaction::Mean => REACTION_MEAN,
                    Reaction::Max => REACTION_MAX,
                    Reaction::Reciprocal => REACTION_RECIPROCAL,
                };
                Adaptation { rule: ADAPT_ZSCORE, steps: warm_up, reaction, a: z, b: decay, ..none }
            }
            Some(Adapt::AdaGc { factor, decay, warm_up }) => {
                Adaptation { rule: ADAPT_ADAGC, steps: warm_up, a: factor, b: decay, ..none }
            }
            Some(Adapt::Quantile { quantile, rate }) => {
                Adaptation { rule: ADAPT_QUANTILE, a: quantile, b: rate, ..none }
            }
        }
    }
}
