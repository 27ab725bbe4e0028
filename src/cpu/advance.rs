//! what a step was -> loss scale of the next one and corrections of the optimiser's: the twin of
//! `shaders/advance.wgsl`, in `f32` operations that every processor rounds correctly.

use crate::clip::MOST_SCALE;
use crate::layout::{ADAM, Hyper, LION, NADAM, Progress, RADAM, SCALES_LOSS, SPAM, STEPS, Tally};

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
    if hyper.flags & NADAM != 0 {
        look_ahead(hyper, progress);
    }
    if hyper.flags & RADAM != 0 {
        rectify(hyper, progress);
    }
    if hyper.flags & SPAM != 0 {
        warm_up(hyper, progress);
    }
}

/// SPAM's rate after moments were forgotten: 0.01 + 0.99 sin²(π k / (2 (w + 1))) in the k-th of w steps.
fn warm_up(hyper: &Hyper, progress: &mut Progress) {
    let Hyper { reset_interval, reset_warmup, .. } = *hyper;
    if reset_interval == 0 || progress.updates < reset_interval {
        return;
    }
    let k = progress.updates % reset_interval;
    if k < reset_warmup {
        let sine = sine(std::f32::consts::FRAC_PI_2 * (k as f32 / reset_warmup.saturating_add(1) as f32));
        progress.correction *= 0.01 + 0.99 * (sine * sine);
    }
}

/// sin x for x from 0 to π / 2: the series to x^13, whose truncation error is below 6e-10 there.
fn sine(x: f32) -> f32 {
    let square = x * x;
    let term = |e: f32, n: u32| (1.0 - e * (square / (n * (n + 1)) as f32)).abs();
    x * [12, 10, 8, 6, 4, 2].into_iter().fold(1.0, term)
}

/// NAdam's factors of the gradient and of the first moment, from the product of all momenta so far: μₜ = β₁ / 2 (1 + cₜ) and
/// 1 - μₜ = (1 - β₁) + β₁ / 2 (1 - cₜ) with cₜ = 1 - 0.96^(t ψ).
fn look_ahead(hyper: &Hyper, progress: &mut Progress) {
    let half_decay = hyper.decay * 0.5;
    let grown = complement_of_power(hyper.momentum_share, progress.updates);
    let left = 1.0 - grown;
    let grown_next = grown + hyper.momentum_share * left;
    let product = progress.momentum_product * (half_decay * (1.0 + grown));
    let momentum_next = half_decay * (1.0 + grown_next);
    let product_next = product * momentum_next;
    let share = hyper.share + half_decay * left;
    progress.momentum_product = product;
    progress.gradient_correction = share / (1.0 - product);
    progress.correction = momentum_next / (1.0 - product_next);
}

/// RAdam's factor of the first moment. Steps that are not rectified divide by nothing; ρₜ is at most t, however both are rounded.
fn rectify(hyper: &Hyper, progress: &mut Progress) {
    let rho = averaged_steps(hyper.second_share, progress.updates);
    if progress.updates <= 5 || rho <= 5.0 {
        progress.second_correction = 0.0;
        return;
    }
    let certainty = (rho - 4.0) * (rho - 2.0) / rho;
    progress.correction *= (certainty * hyper.rectification).sqrt();
}

/// RAdam's ρₜ = 2 m - 1, m the mean of the k from 1 to t, each weighing (1 - s)^(k - 1). The difference that defines it,
/// ρ∞ - 2 t β₂ᵗ / (1 - β₂ᵗ), would lose most digits where β₂ is near 1. Instead the sums of k and of 1 with weights
/// s (1 - s)^(k - 1) over n of them go on by n more or by one, bit after bit of t: only positive terms are added.
fn averaged_steps(s: f32, t: u32) -> f32 {
    let joined = |(n, ranks, weights): (u32, f32, f32), more: (u32, f32, f32)| {
        // (1 - s)^n
        let left = 1.0 - weights;
        (n + more.0, ranks + left * (more.1 + n as f32 * more.2), weights + left * more.2)
    };
    let mut sums = (0, 0.0, 0.0);
    for bit in (0..u32::BITS - t.leading_zeros()).rev() {
        sums = joined(sums, sums);
        if t >> bit & 1 == 1 {
            sums = joined(sums, (1, s, s));
        }
    }
    let (_, ranks, weights) = sums;
    2.0 * (ranks / weights) - 1.0
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

    /// From its definition: the sums themselves, in which nothing cancels.
    fn steps_by_definition(s: f64, t: u32) -> f64 {
        let (mut ranks, mut weights, mut weight) = (0.0, 0.0, 1.0);
        for k in 1..=t {
            ranks += f64::from(k) * weight;
            weights += weight;
            weight *= 1.0 - s;
            if weight < 1e-30 {
                break;
            }
        }
        2.0 * ranks / weights - 1.0
    }

    /// A few roundings for each doubling.
    #[test]
    fn averaged_steps_keep_their_relative_error() {
        for s in [0.5f64, 0.1, 0.02, 1e-2, 1e-3, 1e-4, 1e-6, 1e-7] {
            for t in (1u32..200).chain([999, 1000, 12_345, 65_535, 1_000_000]) {
                let exact = steps_by_definition(f64::from(s as f32), t);
                let got = f64::from(averaged_steps(s as f32, t));
                let roundings = 2.0 * f64::from(t).log2().ceil() + 4.0;
                let bound = roundings * f64::from(f32::EPSILON) / 2.0;
                assert!((got / exact - 1.0).abs() <= bound, "{s} {t}: {got} {exact}");
            }
        }
    }

    fn rectifies(second: f64, t: u32) -> bool {
        let share = (1.0 - second) as f32;
        let hyper = Hyper { second_share: share, ..bytemuck::Zeroable::zeroed() };
        let mut progress = Progress { updates: t, ..crate::clip::LossScale::begin(None) };
        rectify(&hyper, &mut progress);
        progress.second_correction != 0.0
    }

    /// With usual β₂ the fifth step is nearest to a ρ of 5, by 4 (1 - β₂), and others are farther away than 0.06: farther than
    /// any rounding here. PyTorch's difference in f64 decides alike down to 1 - β₂ of 1e-5; from 1.6e-6 on it does not always
    /// know that ρ₅ is below 5.
    #[test]
    fn steps_are_rectified_where_pytorch_rectifies_them() {
        let pytorch = |second: f64, t: u32| {
            let power = second.powi(t as i32);
            2.0 / (1.0 - second) - 1.0 - 2.0 * f64::from(t) * power / (1.0 - power)
        };
        for second in [0.0, 0.5, 0.66, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9999, 0.99999] {
            for t in (1..200).chain([1000, 10_000]) {
                let exact = steps_by_definition(1.0 - second, t);
                let margin = if t == 5 { 3.9 * (1.0 - second) } else { 0.06 };
                assert!((exact - 5.0).abs() > margin, "{second} {t}: {exact}");
                assert_eq!(rectifies(second, t), exact > 5.0, "{second} {t}");
                assert_eq!(rectifies(second, t), pytorch(second, t) > 5.0, "{second} {t}");
            }
        }
        // As near to 1 as a β₂ may be.
        let nearest = 1.0 - f64::from(f32::EPSILON);
        assert_eq!([5, 6].map(|t| rectifies(nearest, t)), [false, true]);
        assert!((0..100).any(|i| pytorch(1.0 - 1e-6 / (1.0 + f64::from(i)), 5) > 5.0));
    }
}
