//! what a step was -> loss scale of the next one and corrections of the optimiser's: the twin of
//! `shaders/advance.wgsl`, in `f32` operations that every processor rounds correctly.

use crate::clip::MOST_SCALE;
use crate::layout::{ADAM, Hyper, LION, Progress, SCALES_LOSS, STEPS, Tally};

pub(super) fn advance(hyper: &Hyper, tally: &Tally, progress: &mut Progress) {
    if hyper.flags & SCALES_LOSS != 0 {
        follow_loss_scale(hyper, tally.non_finite == 0, progress);
    }
    if hyper.flags & STEPS != 0 {
        begin_update(hyper, tally.skipped == 0, progress);
    }
}

fn follow_loss_scale(hyper: &Hyper, finite: bool, progress: &mut Progress) {
    if finite {
        progress.finite_steps += 1;
    } else {
        progress.scale = (progress.scale * hyper.backoff).max(f32::MIN_POSITIVE);
        progress.finite_steps = 0;
    }
    if progress.finite_steps >= hyper.interval {
        let grown = progress.scale * hyper.growth;
        progress.scale = if grown <= MOST_SCALE { grown } else { progress.scale };
        progress.finite_steps = 0;
    }
    progress.unscale = 1.0 / progress.scale;
}

fn begin_update(hyper: &Hyper, moves: bool, progress: &mut Progress) {
    progress.moves = u32::from(moves);
    progress.skips = if moves { 0 } else { progress.skips.saturating_add(1) };
    if !moves {
        return;
    }
    progress.updates += 1;
    progress.share = hyper.share;
    if hyper.flags & ADAM == 0 {
        if progress.updates == 1 && hyper.flags & LION == 0 {
            progress.share = 1.0;
        }
        return;
    }
    progress.correction = 1.0 / complement_of_power(hyper.share, progress.updates);
    progress.second_correction = 1.0 / complement_of_power(hyper.second_share, progress.updates).sqrt();
}

/// 1 - (1 - c)^n.
fn complement_of_power(c: f32, n: u32) -> f32 {
    let (mut base, mut result, mut k) = (c, 0.0f32, n);
    while k > 0 {
        if k & 1 == 1 {
            result += base * (1.0 - result);
        }
        base *= 2.0 - base;
        k >>= 1;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Twice log2(n) roundings of f32, each of a value that later ones bring nearer to 1.
    #[test]
    fn powers_keep_their_relative_error() {
        for c in [0.5f64, 0.1, 1e-3, 1e-4, 1e-6] {
            let stored = f64::from(c as f32);
            for n in [1u32, 2, 3, 7, 10, 100, 999, 1000, 12_345, 1_000_000, u32::MAX] {
                let exact = -f64::exp_m1(f64::from(n) * f64::ln_1p(-stored));
                let got = f64::from(complement_of_power(c as f32, n));
                let roundings = 3.0 * f64::from(n).log2().ceil() + 2.0;
                let bound = roundings * f64::from(f32::EPSILON) / 2.0;
                assert!((got / exact - 1.0).abs() <= bound, "{c} {n}: {got} {exact}");
            }
        }
    }
}
