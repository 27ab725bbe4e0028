//! norm of the whole set, loss, and those of earlier steps -> whether the step is left out: the twin of `shaders/skip.wgsl`.

use crate::layout::{
    GAVE_UP, Inputs, LET_THROUGH, POLICY_SANITIZE, POLICY_SKIP, Progress, REASON_ABOVE, REASON_LOSS,
    REASON_LOSS_NON_FINITE, REASON_NON_FINITE, REASON_NORM, SKIP_FORGETS, SKIP_GIVES_UP, SKIP_LETS_ALL,
    SKIP_LETS_THROUGH, SKIP_LOSS, SKIP_NON_FINITE, Skipping,
};
use crate::real::{F32_MIN_EXPONENT, NO_MIN_EXPONENT, Real, Rounded};

/// What is known of the whole set in a step.
#[derive(Clone, Copy)]
pub(crate) struct Whole {
    /// That of its finite elements.
    pub(crate) norm: Rounded,
    pub(crate) non_finite: bool,
    /// One of the `POLICY_` constants.
    pub(crate) policy: u32,
}

/// Whether a step is left out with all that belongs to it.
pub(crate) fn leaves_out(progress: &Progress) -> bool {
    const SPIKES: u32 = REASON_ABOVE | REASON_NORM | REASON_LOSS | REASON_LOSS_NON_FINITE;
    progress.reasons & SPIKES != 0 && progress.reasons & LET_THROUGH == 0
}

/// Notes a step of which nothing is watched: whether it was above the bound, and whether it was not finite where that is skipped.
pub(crate) fn judge_bound((above, non_finite): (bool, bool), progress: &mut Progress) {
    progress.reasons = if above { REASON_ABOVE } else { 0 } | if non_finite { REASON_NON_FINITE } else { 0 };
    progress.strikes = if progress.reasons != 0 { progress.strikes.saturating_add(1) } else { 0 };
    progress.spikes = progress.spikes.saturating_add(above.into());
}

/// Judges a step. `watched` holds the norms that are kept, then the losses.
pub(crate) fn judge(
    skipping: &Skipping,
    inputs: &Inputs,
    whole: Whole,
    progress: &mut Progress,
    watched: &mut [f32],
) {
    let has = |flag: u32| skipping.flags & flag != 0;
    let window = skipping.window as usize;
    let filled = progress.watched.min(skipping.window) as usize;
    let loss = if has(SKIP_LOSS) { inputs.loss } else { 0.0 };
    let norm = match whole.non_finite && whole.policy != POLICY_SANITIZE {
        true => f32::INFINITY,
        false => whole.norm.to_f32().min(f32::MAX),
    };
    let decides = window > 0 && progress.watched.saturating_add(1) >= skipping.first;
    let (norms, losses) = watched.split_at_mut(window);
    let mut reasons = 0;
    if norm.is_finite() {
        let bound = Real::from_f32(skipping.above).round(NO_MIN_EXPONENT);
        let over = skipping.above.is_finite() && whole.norm.exceeds(bound);
        reasons |= if over { REASON_ABOVE } else { 0 };
        reasons |= if decides && is_spike(&norms[..filled], norm, skipping.sigma) { REASON_NORM } else { 0 };
    }
    if !loss.is_finite() {
        reasons |= REASON_LOSS_NON_FINITE;
    } else if decides && has(SKIP_LOSS) && is_spike(&losses[..filled], loss, skipping.sigma) {
        reasons |= REASON_LOSS;
    }
    if whole.non_finite && whole.policy == POLICY_SKIP {
        reasons |= REASON_NON_FINITE;
    }
    progress.strikes = if reasons != 0 { progress.strikes.saturating_add(1) } else { 0 };
    if has(SKIP_GIVES_UP) && progress.strikes > skipping.most {
        let lets = has(SKIP_LETS_ALL) || (has(SKIP_LETS_THROUGH) && reasons & REASON_NON_FINITE == 0);
        reasons |= GAVE_UP | if lets { LET_THROUGH } else { 0 };
    }
    progress.reasons = reasons;
    let leaves = leaves_out(progress);
    progress.spikes = progress.spikes.saturating_add(leaves.into());
    let finite = !whole.non_finite && loss.is_finite();
    if window > 0 && (has(SKIP_NON_FINITE) || (finite && !(has(SKIP_FORGETS) && leaves))) {
        let place = progress.watched as usize % window;
        norms[place] = if whole.non_finite { f32::INFINITY } else { norm };
        losses[place] = if loss.is_finite() { loss } else { f32::INFINITY };
        progress.watched += 1;
    }
}

/// Units that the largest magnitude has at least, and less than twice as many.
const HALF: i64 = 1 << 22;
/// What is added so that no value is negative: nothing depends on where 0 lies.
const OFFSET: i64 = 2 * HALF;

/// In units of 2^-22 of the power of two below the largest magnitude of all, towards 0.
fn units(value: f32, field: u32) -> u64 {
    let bits = value.to_bits() & 0x7fff_ffff;
    let own = (bits >> 23).max(1);
    let mantissa = i64::from(bits - ((own - 1) << 23));
    let magnitude = mantissa.checked_shr(1 + field - own).unwrap_or(0);
    (OFFSET + if value.is_sign_negative() { -magnitude } else { magnitude }) as u64
}

/// Whether x - mean > sigma * deviation: with n values of sum S and squares Q, n x - S > sigma √((n Q - S²) n / (n - 1)).
fn is_spike(values: &[f32], x: f32, sigma: f32) -> bool {
    let field = |value: &f32| ((value.to_bits() & 0x7fff_ffff) >> 23).max(1);
    let largest = values.iter().chain([&x]).map(field).max().unwrap_or(1);
    if largest == 255 {
        return true;
    }
    let n = values.len() as u64;
    let (mut sum, mut squares) = (0, 0);
    for value in values {
        let units = units(*value, largest);
        (sum, squares) = (sum + units, squares + units * units);
    }
    let above = (n * units(x, largest)).saturating_sub(sum);
    let spread = u128::from(n) * u128::from(squares) - u128::from(sum) * u128::from(sum);
    let f32_of = |value: u128| Real::new(value, 0, false).round(F32_MIN_EXPONENT).to_f32();
    let variance = f32_of(spread) * n as f32 / (n - 1) as f32;
    above > 0 && f32_of(above.into()) > sigma * variance.sqrt()
}
