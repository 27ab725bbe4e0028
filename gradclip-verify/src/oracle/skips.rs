//! Rules that leave out steps, in plain `f64`: what OLMo-core, Megatron and Optax say, step after step.

use gradclip::{GiveUp, Remembers, Skip, SkipReport};

/// What a rule finds in a step.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// As a report tells it.
    pub report: SkipReport,
    /// How far the nearest decision was from going the other way, relative to the largest value that it looked at.
    pub margin: f64,
}

/// The rule of a run: given norm and loss of a step, what is found.
pub type Program = Box<dyn FnMut(f64, f64) -> Found>;

/// The program of a rule.
pub fn program(skip: Skip) -> Program {
    let (mut norms, mut losses): (Vec<f64>, Vec<f64>) = (Vec::new(), Vec::new());
    let (mut in_a_row, mut spikes) = (0, 0);
    let first = skip.first.unwrap_or((skip.window / 2).max(3)) as usize;
    Box::new(move |norm, loss| {
        let loss = if skip.loss { loss } else { 0.0 };
        let (mut found, mut nearest) = (SkipReport::default(), f64::INFINITY);
        found.above = norm.is_finite() && norm > skip.above;
        (found.loss_non_finite, found.non_finite) = (!loss.is_finite(), !norm.is_finite());
        if let Some(sigma) = skip.sigma.filter(|_| norms.len() + 1 >= first) {
            let mut spike = |values: &[f64], x: f64| {
                if !x.is_finite() {
                    return false;
                }
                let recent = &values[values.len().saturating_sub(skip.window as usize)..];
                let (over, margin) = z_score(recent, x, f64::from(sigma));
                nearest = nearest.min(margin);
                over
            };
            let (of_norm, of_loss) = (spike(&norms, norm), skip.loss && spike(&losses, loss));
            (found.norm, found.loss) = (of_norm, of_loss);
        }
        let spike = found.above || found.norm || found.loss || found.loss_non_finite;
        in_a_row = if spike || found.non_finite { in_a_row + 1 } else { 0 };
        found.in_a_row = in_a_row;
        found.gave_up = skip.max_consecutive.is_some_and(|most| in_a_row > u64::from(most));
        found.let_through = found.gave_up
            && match skip.give_up {
                GiveUp::LetThrough => !found.non_finite,
                give_up => give_up == GiveUp::LetAllThrough,
            };
        spikes += u64::from(spike && !found.let_through);
        found.spikes = spikes;
        let enters = match skip.remembers {
            Remembers::Finite => norm.is_finite() && loss.is_finite(),
            Remembers::Passed => norm.is_finite() && loss.is_finite() && (!spike || found.let_through),
            _ => true,
        };
        if enters {
            norms.push(norm);
            losses.push(loss);
        }
        Found { report: found, margin: nearest }
    })
}

/// Whether x - mean > sigma * std, by PyTorch's formula with n - 1; what is not finite makes it so.
fn z_score(values: &[f64], x: f64, sigma: f64) -> (bool, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let deviation = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
    let (left, right) = (x - mean, sigma * deviation);
    if !right.is_finite() {
        return (true, f64::INFINITY);
    }
    let largest = values.iter().fold(x.abs(), |largest, v| largest.max(v.abs()));
    (left > right, (left - right).abs() / ((1.0 + sigma) * largest))
}
