//! What a private sum is, as plain data: which clips have a bound for an example, the grid, and what a lot may hold.

use std::fmt;

use crate::clip::{Clip, NonFinite, NormType, Rule, Scope};
use crate::error::{ClipError, PrivateError};
use crate::layout::Releasing;
use crate::real::{NO_MIN_EXPONENT, Real};
use crate::segments::Segments;
use crate::tensor::{DType, TensorInfo};

/// What DP-SGD (Abadi et al. 2016, arXiv 1607.00133) does with clipped gradients of examples: it adds them up over a lot, adds
/// Gaussian noise of standard deviation `noise_multiplier` · C, and divides by the expected size of a lot.
/// [`Clipper::prepare_private`](crate::Clipper::prepare_private) has it on the GPU, [`cpu::prepare_private`](crate::cpu::prepare_private())
/// on slices, with the same bits. [The guide](crate::guide::privacy) has a recipe.
///
/// # The bound
///
/// C is the clip's threshold, 2^k its power of two, and 2^(k - 40) the unit of a grid that follows from C alone. Each
/// element of a clipped gradient is cut towards zero to a multiple of that unit and added as an integer of 64 bits. So sums are exact, in any
/// order and however a lot is cut into batches, and taking one example away moves them by a vector whose norm is at most C, in exact arithmetic: no
/// rounding comes after. An example that is not finite adds nothing, or under [`NonFinite::Sanitize`] what is left of it.
///
/// # The noise
///
/// Noise is z · σ · C rounded to the same grid, and added to the integers; what follows, a division rounded once to `f32`, sees nothing else. z is
/// a standard normal number computed by integers alone, the same on every device: Box and Muller's of 127 random bits, within 2^-47 of that
/// real number, never beyond 9.42, which a normal number exceeds with a probability of 2^-68. For each element the bits are those of two
/// counters of Threefry-2x32-20 (Salmon et al. 2011), element and number of the release, under two keys that follow from the seed and
/// the tensor's number. Nothing of it depends on batches, buffers or devices.
///
/// What that is good for, and what not:
///
/// - It is reproducible: who knows the seed can take the noise off again. The seed has to be drawn from the system's source of randomness,
///   kept secret, and used once.
/// - Threefry is a statistical generator. It resembles a cipher with fewer rounds, nobody has published an attack, and nobody has promised
///   that there is none; its key has 64 bits. Where an adversary is expected who would search for it, this is not enough.
/// - Noise is never drawn twice within one sum: releases are counted on the device. Two sums of one seed draw the same noise, whatever they
///   are prepared for, and so does a run that is resumed with the seed of releases that were seen: subtracting two of them leaves the exact
///   difference. Give each run its seed, or the number of its first release ([`Private::first_release`]).
/// - A rounded continuous Gaussian is not the discrete Gaussian of Canonne, Kamath and Steinke (2020, arXiv 2004.00010). An auditor should ask for
///   the grid (above: C / 2^40 to C / 2^41, so that the attack of Mironov 2012 on the gaps between floating-point numbers finds none: what is added
///   and what is noise are integers), for the 2^-47, for the ends at 9.42 σ, and for what the accountant assumed.
/// - There is no accountant here: ε and δ are Opacus' or dp-accounting's. They assume how lots are sampled, and that nothing else that
///   depends on examples leaves: norms, losses, and shares of clipped examples in reports do, without noise.
///
/// ```
/// use gradclip::{Clip, Private, cpu::{self, GradRef}};
///
/// // Gradients of two examples for a weight and a bias.
/// let (w, b) = ([3.0f32, 0.0, 0.3, 0.4], [4.0f32, 0.0]);
/// let like = [GradRef::new("w", &w[..]).shape(&[2, 2]), GradRef::new("b", &b[..]).shape(&[2, 1])];
/// // Without noise, to see the sum: norms 5 and 0.5, limited to 1, over an expected lot of 2.
/// let private = Private::new(0.0, 1).expected_batch_size(2);
/// let mut sum = cpu::prepare_private(&like, &Clip::per_row_norm(1.0), private)?;
/// sum.add([&w[..], &b[..]])?;
/// let (mut dw, mut db) = ([0.0f32; 2], [0.0f32]);
/// sum.release([&mut dw[..], &mut db[..]])?;
/// assert!((dw[0] - 0.45).abs() < 1e-6 && (db[0] - 0.4).abs() < 1e-6);
/// # Ok::<(), gradclip::PrivateError>(())
/// ```
// Not `Clone`: what is used twice draws the same noise twice.
#[derive(PartialEq)]
pub struct Private {
    noise_multiplier: f64,
    seed: u64,
    lot: u32,
    first_release: u32,
}

/// Without the seed, which is a key.
impl fmt::Debug for Private {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Private { noise_multiplier, lot, first_release, .. } = self;
        let mut all = f.debug_struct("Private");
        all.field("noise_multiplier", noise_multiplier).field("lot", lot);
        all.field("first_release", first_release).finish_non_exhaustive()
    }
}

/// Binary digits that the grid has below the power of two of C.
const DIGITS: i32 = 40;
/// Examples of a lot: each adds less than 2^41 units to an element, and noise less than 2^55, so that sums stay below 2^63.
const MOST_EXAMPLES: u64 = 1 << 21;
/// Above this, noise would leave gaps in the grid: z has 2^-52.
const MOST_NOISE: f64 = 1024.0;

impl Private {
    /// Noise of this many times C, 0 for none (and no privacy), of this key. Nothing is divided: what is released is the sum.
    pub fn new(noise_multiplier: f64, seed: u64) -> Private {
        Private { noise_multiplier, seed, lot: 1, first_release: 0 }
    }

    /// Sets what sums are divided by, for means: how many examples a lot is expected to have, however many it has.
    #[must_use]
    pub fn expected_batch_size(self, examples: u32) -> Private {
        Private { lot: examples, ..self }
    }

    /// Sets the number of the first release, 0 unless set: for a run that goes on after that many with their seed.
    #[must_use]
    pub fn first_release(self, number: u32) -> Private {
        Private { first_release: number, ..self }
    }

    pub(crate) fn first(&self) -> u32 {
        self.first_release
    }

    /// That tensors are clipped so that an example's norm has a bound, and the constants of the sum.
    pub(crate) fn check(
        &self,
        clip: &Clip,
        infos: &[TensorInfo],
        parts: &Segments,
    ) -> Result<Releasing, PrivateError> {
        if let Some((what, required)) = without_bound(clip) {
            return Err(ClipError::Combination { what, required }.into());
        }
        for info in infos {
            let (required, given) = match info.dtype {
                _ if info.excluded() => ("no excluded group: what is not clipped has no bound", "one"),
                DType::F64 => ("gradients of f32, f16 or bf16 for a private sum", "f64"),
                _ => continue,
            };
            let (tensor, required, given) = (info.name.to_string(), required.into(), given.into());
            return Err(ClipError::Tensor { tensor, required, given }.into());
        }
        if parts.rows().1 == 0 {
            let (what, required) = ("a private sum", "batches of at least one example");
            return Err(ClipError::Combination { what, required }.into());
        }
        let constants = [
            ("noise multiplier", "0 to 1024", self.noise_multiplier, 0.0..=MOST_NOISE),
            (
                "expected batch size",
                "1 to 2097151 examples",
                self.lot.into(),
                1.0..=MOST_EXAMPLES as f64 - 1.0,
            ),
        ];
        for (what, required, given, range) in constants {
            if !range.contains(&given) {
                return Err(PrivateError::Constant { what, required, given });
            }
        }
        let settings = parts.settings(clip, &parts.thresholds(clip));
        let bound = settings.last().filter(|s| s.lift == 0 && s.threshold > 0.0 && s.threshold.is_finite());
        let what = "a private sum";
        let required = "a threshold above 0 and finite as f32, which noise is a multiple of";
        let bound = bound.ok_or(ClipError::Combination { what, required })?;
        Ok(self.releasing(bound.threshold))
    }

    /// `threshold` is the one that coefficients are computed with: above 0 and finite.
    fn releasing(&self, threshold: f32) -> Releasing {
        let bits = |x: f32| Real::from_f32(x).round(NO_MIN_EXPONENT);
        let (bound, noise) = (bits(threshold), bits(at_least(self.noise_multiplier)));
        // 47 or 48 bits, exactly.
        let product = u64::from(bound.mantissa) * u64::from(noise.mantissa);
        let up = product.leading_zeros() as i32;
        let unit = bound.exponent + 23 - DIGITS;
        let scale = product.checked_shl(up as u32).unwrap_or(0);
        Releasing {
            unit,
            lot: self.lot,
            scale_low: scale as u32,
            scale_high: (scale >> 32) as u32,
            drop: unit + up - bound.exponent - noise.exponent - 33,
            seed_low: self.seed as u32,
            seed_high: (self.seed >> 32) as u32,
        }
    }
}

/// The least `f32` that is not below.
fn at_least(value: f64) -> f32 {
    let near = value.abs() as f32;
    if f64::from(near) < value { near.next_up() } else { near }
}

/// What takes the bound of an example's norm away, or lets an example change what becomes of others; and what is required instead.
fn without_bound(clip: &Clip) -> Option<(&'static str, &'static str)> {
    let wrong = [
        (clip.scope != Scope::Row, "a norm of each example: `Scope::Row`"),
        (clip.norm != NormType::Two, "norm type 2, which Gaussian noise goes with"),
        (
            !matches!(clip.rule, Rule::Norm | Rule::Normalize),
            "the rule Norm or Normalize, under which norms have a bound",
        ),
        (!clip.is_never_above(), "`Clip::never_above`: norms are at most C in exact arithmetic"),
        (clip.adapt.is_some(), "a fixed threshold, which noise is a multiple of; it can be set between lots"),
        (clip.total.is_some(), "no limit of the whole set, by which one example would change others"),
        (clip.skip.is_some(), "no rule that leaves out steps, by which one example would take away others"),
        (clip.loss_scale.is_some(), "no loss scale, by which one example would change others in later lots"),
        (
            !matches!(clip.non_finite, NonFinite::Skip | NonFinite::Zero | NonFinite::Sanitize),
            "NonFinite::Skip, Zero or Sanitize: integers are always finite",
        ),
    ];
    wrong.into_iter().find(|(is, _)| *is).map(|(_, required)| ("a private sum", required))
}

/// What was added since the last release, and which release comes next.
#[derive(Debug)]
pub(crate) struct Lot {
    examples: u64,
    next: Option<u32>,
}

/// A release that may be made.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Release {
    /// Its number, of which its noise is.
    pub(crate) number: u32,
    /// Whether nothing was added: sums are then those of the lot before.
    pub(crate) empty: bool,
}

impl Lot {
    pub(crate) fn new(private: &Private) -> Lot {
        Lot { examples: 0, next: Some(private.first_release) }
    }

    /// Whether a batch of so many examples begins the lot.
    pub(crate) fn add(&mut self, examples: u64) -> Result<bool, PrivateError> {
        let given = self.examples.saturating_add(examples);
        if given > MOST_EXAMPLES {
            return Err(PrivateError::Examples { required: MOST_EXAMPLES, given });
        }
        let begins = self.examples == 0;
        self.examples = given;
        Ok(begins)
    }

    /// Ends the lot. Numbers are never used twice.
    pub(crate) fn release(&mut self) -> Result<Release, PrivateError> {
        let number = self.next.ok_or(PrivateError::Releases)?;
        self.next = number.checked_add(1);
        let empty = std::mem::take(&mut self.examples) == 0;
        Ok(Release { number, empty })
    }

    /// The number of the next release; none where all were used.
    pub(crate) fn next(&self) -> Option<u32> {
        self.next
    }

    /// That no lot has begun.
    pub(crate) fn check_between(&self) -> Result<(), PrivateError> {
        if self.examples == 0 { Ok(()) } else { Err(PrivateError::InLot { given: self.examples }) }
    }
}
