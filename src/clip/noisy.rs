//! A threshold that follows a quantile of norms, with noise.

use crate::error::ClipError;
use crate::layout::{ADAPT_NOISY_QUANTILE, Adaptation};

/// [`Adapt::NoisyQuantile`](crate::Adapt::NoisyQuantile), the private form of [`Adapt::Quantile`](crate::Adapt::Quantile) (Andrew et al. 2021, arXiv 1905.03871): b = 1/2 + (Σ(bᵢ − 1/2) + z · `noise`) /
/// `expected`, bᵢ 1 for a segment whose norm did not exceed C, 0 for others, and nothing for one that is not finite. An example
/// changes the sum by 1/2. z is a standard normal number for each step and limit,
/// computed by integers as [`Private`](crate::Private)'s and rounded, with its factor, to 2^-20. C moves whether or not anything was counted.
///
/// What holds of the seed there holds here: drawn from the system's source of randomness, secret, and never used for the same steps again, as
/// by a run that goes on from a history older than what it released; what a [`History`](crate::History) saves does not have it, so that another one can be given.
/// A private sum of the same seed draws other noise. How far thresholds may move is what [`Clip::at_least`](crate::Clip::at_least) and
/// [`Clip::at_most`](crate::Clip::at_most) say. A clip holds the seed, and so does what it
/// serialises to.
///
/// ```
/// use gradclip::{Adapt, Clip, History, NoisyQuantile, cpu::{self, GradMut}};
///
/// // The paper sets noise to a twentieth of the examples expected.
/// let median = NoisyQuantile::new(0.5, 0.2, 0.1, 2, 4);
/// let clip = Clip::per_row_norm(1.0).adapt(Adapt::NoisyQuantile(median));
/// let mut history = History::default();
/// for _ in 0..40 {
///     let mut g = [0.3f32, 0.4, 6.0, 8.0];
///     cpu::clip_with(&mut [GradMut::new("w", &mut g).shape(&[2, 2])], &clip, &mut history)?;
/// }
/// let c = history.thresholds()[0];
/// assert!(c > 0.5 && c < 10.0); // between the norms
/// # Ok::<(), gradclip::ClipError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct NoisyQuantile {
    /// γ, 0 to 1; 0.5 is the median.
    pub quantile: f32,
    /// η, 0 to 16; 0.2 in the paper.
    pub rate: f32,
    /// Standard deviation σ_b of the noise on the count, 0 to 2^20.
    pub noise: f32,
    /// Segments that a step is expected to have, 1 to 2^24.
    pub expected: u32,
    /// Key of the noise.
    pub seed: u64,
}

impl NoisyQuantile {
    /// Quantile, rate, noise on the count, examples expected, seed.
    pub fn new(quantile: f32, rate: f32, noise: f32, expected: u32, seed: u64) -> NoisyQuantile {
        NoisyQuantile { quantile, rate, noise, expected, seed }
    }

    pub(super) fn validate(self) -> Result<(), ClipError> {
        let checks = [
            ("quantile", "0 to 1", self.quantile, 0.0..=1.0),
            ("rate", "0 to 16", self.rate, 0.0..=16.0),
            ("noise", "0 to 1048576", self.noise, 0.0..=1_048_576.0),
            ("number of segments", "1 to 16777216", self.expected as f32, 1.0..=16_777_216.0),
        ];
        match checks.into_iter().find(|(.., given, range)| !range.contains(given)) {
            None => Ok(()),
            Some((what, required, given, _)) => Err(ClipError::Adapt { what, required, given }),
        }
    }

    /// What the kernel reads, beside what it has of any rule.
    pub(super) fn record(self, none: Adaptation) -> Adaptation {
        Adaptation {
            rule: ADAPT_NOISY_QUANTILE,
            // -0 compares as a huge integer.
            a: self.quantile.abs(),
            b: self.rate.abs(),
            c: self.noise.abs(),
            d: self.expected as f32,
            steps: self.seed as u32,
            reaction: (self.seed >> 32) as u32,
            ..none
        }
    }
}
