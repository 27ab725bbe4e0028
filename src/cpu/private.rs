//! Sums over clipped examples, with noise: the twin of `shaders/private_sum.wgsl` and `private_release.wgsl`.

use std::fmt;

use crate::clip::Clip;
use crate::error::{ClipError, PrivateError};
use crate::layout::{FILL, LEFT_OUT, NOISE_OF_SUMS, Outcome, Releasing, SANITIZE, SKIPPED, TOWARD_ZERO};
use crate::private::{Lot, Private};
use crate::real::{F32_MIN_EXPONENT, Real, largest_unscaled};
use crate::report::Report;
use crate::segments::Segments;

use super::block::{Values, not_here, with_elements};
use super::decision::GradRef;
use super::element::Element;
use super::grads::Slice;
use super::kept::Kept;
use super::noise::NoiseKeys;
use super::set::Set;
use super::threads;
use super::workspace::Workspace;

/// Sums over clipped examples, prepared by [`prepare_private`]: the CPU path's [`PrivateSum`](crate::PrivateSum), with the same bits.
///
/// A lot may come in any number of batches: [`PrivateSum::add`] for each, then [`PrivateSum::release`].
pub struct PrivateSum {
    kept: Kept,
    private: Private,
    releasing: Releasing,
    lot: Lot,
    /// Of each tensor without its first axis.
    sums: Vec<Vec<i64>>,
}

/// Without the constants, of which the seed is a key, and the sums.
impl fmt::Debug for PrivateSum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PrivateSum { private, lot, .. } = self;
        f.debug_struct("PrivateSum").field("private", private).field("lot", lot).finish_non_exhaustive()
    }
}

/// Prepares private sums of gradients like these, each of shape `[examples, ...]`; rows of zeros add nothing, so that a batch may be
/// filled up with them. [`Private`] says what is computed.
///
/// # Errors
///
/// A [`Clip`] that does not validate, or that gives an example's norm no bound; tensors without a shape, of different numbers of examples, in an
/// excluded group or of `f64`; constants of `private` out of their range.
pub fn prepare_private(
    grads: &[GradRef<'_>],
    clip: &Clip,
    private: Private,
) -> Result<PrivateSum, PrivateError> {
    let infos: Vec<_> = grads.iter().map(GradRef::info).collect();
    let parts = Segments::new(&infos, clip)?;
    let releasing = private.check(clip, &infos, &parts)?;
    let examples = u64::from(parts.rows().1);
    let elements = |elements: u64| elements.checked_div(examples).unwrap_or(0) as usize;
    let sums = infos.iter().map(|info| vec![0; elements(info.elements)]).collect();
    let workspace = Workspace::new(&infos, &parts);
    let kept = Kept::new(Set { infos, parts, double: false }, clip, workspace)?;
    Ok(PrivateSum { kept, lot: Lot::new(&private), private, releasing, sums })
}

impl PrivateSum {
    /// Clips the examples of a batch and adds them to the lot, in the order prepared. Gradients are only read.
    ///
    /// # Errors
    ///
    /// [`ClipError::Tensor`] for a tensor of another length or type than was prepared, [`ClipError::Count`] for more or fewer, and
    /// [`PrivateError::Examples`] for a lot of more than 2^21 examples. Nothing is added then.
    pub fn add<'a, T>(&mut self, grads: impl IntoIterator<Item = T>) -> Result<(), PrivateError>
    where
        T: Into<Slice<'a>>,
    {
        let grads: Vec<Values<'_>> = grads.into_iter().map(|g| g.into().data).collect();
        self.kept.check(grads.iter().map(|g| (g.len(), g.dtype())))?;
        let begins = self.lot.add(self.kept.set.parts.rows().1.into())?;
        self.kept.decide(&grads, &[]);
        let factors: Vec<Factor> = self.kept.workspace.outcomes.iter().map(Factor::of).collect();
        let unit = self.releasing.unit;
        for (gradient, sums) in grads.iter().zip(&mut self.sums) {
            if begins {
                sums.fill(0);
            }
            with_elements!(Values, gradient, e => add(e, &factors, unit, sums), _e => not_here());
        }
        Ok(())
    }

    /// Ends the lot: writes sums with noise, over the expected number of examples, in each tensor's shape without the first axis. A lot without
    /// examples releases noise alone.
    ///
    /// # Errors
    ///
    /// [`ClipError::Tensor`] for a slice of another length, [`ClipError::Count`] for more or fewer, and [`PrivateError::Releases`] after
    /// 2^32 releases. Nothing is written then, and the lot goes on.
    pub fn release<'a>(
        &mut self,
        means: impl IntoIterator<Item = &'a mut [f32]>,
    ) -> Result<(), PrivateError> {
        let means: Vec<&mut [f32]> = means.into_iter().collect();
        if means.len() != self.sums.len() {
            return Err(ClipError::Count { required: self.sums.len(), given: means.len() }.into());
        }
        for (i, (mean, sums)) in means.iter().zip(&self.sums).enumerate() {
            if mean.len() != sums.len() {
                let required = format!("{} elements to release, those of an example", sums.len());
                return Err(self.kept.wrong(i, required, mean.len().to_string()).into());
            }
        }
        let release = self.lot.release()?;
        if release.empty {
            self.sums.iter_mut().for_each(|sums| sums.fill(0));
        }
        let seed = [self.releasing.seed_low, self.releasing.seed_high];
        for (tensor, (mean, sums)) in (0..).zip(means.into_iter().zip(&self.sums)) {
            let keys = NoiseKeys::new(seed, tensor, NOISE_OF_SUMS);
            let own = Own { releasing: &self.releasing, keys, release: release.number };
            threads::each(mean, AT_ONCE, &|first, to| own.write(first, &sums[first..], to));
        }
        Ok(())
    }

    /// The sums of the lot so far, before noise, in units of 2^[`PrivateSum::unit`], tensor by tensor: exact, and not private.
    pub fn sums(&self) -> &[Vec<i64>] {
        &self.sums
    }

    /// Exponent of the grid's unit.
    pub fn unit(&self) -> i32 {
        self.releasing.unit
    }

    /// The number of the next release, to go on with ([`Private::first_release`]); none after 2^32.
    pub fn next_release(&self) -> Option<u32> {
        self.lot.next()
    }

    /// What the last batch measured, and how many of its examples were clipped: without noise, and so not private.
    pub fn report(&self) -> Option<Report> {
        self.kept.begun().then(|| self.kept.report(None))
    }

    /// Changes C, from the next lot on: the bound, the grid, and the noise, which is a multiple of it.
    ///
    /// # Errors
    ///
    /// [`PrivateError::InLot`] within a lot; as [`prepare_private`] for a threshold that is not above 0 and finite. Nothing changes then.
    pub fn set_threshold(&mut self, threshold: impl Into<f64>) -> Result<(), PrivateError> {
        self.lot.check_between()?;
        let clip = Clip { threshold: threshold.into(), ..self.kept.clip };
        clip.validate()?;
        let Set { infos, parts, .. } = &self.kept.set;
        self.releasing = self.private.check(&clip, infos, parts)?;
        self.kept.clip = clip;
        Ok(self.kept.set_threshold(clip.threshold)?)
    }
}

/// Elements that a thread takes at least.
const AT_ONCE: usize = 1024;

/// What an example's elements are multiplied by: mantissa * 2^exponent. 0 for one that is left out.
#[derive(Clone, Copy)]
struct Factor {
    mantissa: u32,
    exponent: i32,
    /// The largest magnitude that is taken, as `f32` bits.
    largest: u32,
}

impl Factor {
    fn of(outcome: &Outcome) -> Factor {
        let filled = outcome.action & !(SANITIZE | TOWARD_ZERO) == FILL;
        if filled || outcome.flags & (LEFT_OUT | SKIPPED) != 0 {
            return Factor { mantissa: 0, exponent: 0, largest: 0 };
        }
        let (mantissa, exponent) = parted(outcome.scale.to_bits());
        let rescale = (outcome.rescale.to_bits() >> 23) as i32 - 127;
        let sanitizes = outcome.action & SANITIZE != 0;
        let largest = if sanitizes { largest_unscaled(outcome.unscale) } else { u32::MAX };
        Factor { mantissa, exponent: exponent + 2 * rescale, largest }
    }
}

/// Mantissa and exponent of a finite magnitude.
fn parted(magnitude: u32) -> (u32, i32) {
    let field = (magnitude >> 23).max(1);
    (magnitude - ((field - 1) << 23), field as i32 - 150)
}

/// Adds every example's elements.
fn add<T: Element>(gradient: &[T], factors: &[Factor], unit: i32, sums: &mut [i64]) {
    if sums.is_empty() {
        return;
    }
    let stride = sums.len();
    threads::each(sums, AT_ONCE, &|first, own| {
        for (example, factor) in gradient.chunks_exact(stride).zip(factors).filter(|(_, f)| f.mantissa != 0) {
            let elements = &example[first..first + own.len()];
            own.iter_mut().zip(elements).for_each(|(sum, e)| *sum += term(e.f32_bits(), *factor, unit));
        }
    });
}

/// An element times a factor, cut towards zero to a multiple of 2^unit.
fn term(bits: u32, factor: Factor, unit: i32) -> i64 {
    let magnitude = bits & 0x7fff_ffff;
    if magnitude > factor.largest {
        return 0;
    }
    let (mantissa, exponent) = parted(magnitude);
    let product = u64::from(mantissa) * u64::from(factor.mantissa);
    let power = exponent + factor.exponent - unit;
    let size = match power {
        0.. => product.checked_shl(power as u32),
        _ => product.checked_shr(power.unsigned_abs()),
    };
    let size = size.unwrap_or(0) as i64;
    if bits >> 31 == 1 { -size } else { size }
}

/// The release of one tensor.
struct Own<'a> {
    releasing: &'a Releasing,
    keys: NoiseKeys,
    release: u32,
}

impl Own<'_> {
    fn write(&self, first: usize, sums: &[i64], to: &mut [f32]) {
        for (element, (to, sum)) in (first as u32..).zip(to.iter_mut().zip(sums)) {
            *to = self.mean(sum + self.noise(element));
        }
    }

    fn noise(&self, element: u32) -> i64 {
        let Releasing { scale_low, scale_high, drop, .. } = *self.releasing;
        match u64::from(scale_high) << 32 | u64::from(scale_low) {
            0 => 0,
            scale => self.keys.at(element, self.release).on_grid(scale, drop),
        }
    }

    /// total * 2^unit / lot, rounded to nearest-even, at most the largest `f32`.
    fn mean(&self, total: i64) -> f32 {
        let Releasing { unit, lot, .. } = *self.releasing;
        let whole = u128::from(total.unsigned_abs()) << 64;
        let (quotient, rest) = (whole / u128::from(lot), whole % u128::from(lot));
        let near = Real::new(quotient, unit - 64, rest != 0).round(F32_MIN_EXPONENT).to_f32().min(f32::MAX);
        if total < 0 { -near } else { near }
    }
}
