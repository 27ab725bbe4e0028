//! Thresholds that follow earlier norms, in plain `f64`: what the papers and libraries say, norm after norm.

use gradclip::{Adapt, Clip, Reaction};

/// The rule of one limit: given the norms of a step, the threshold that held in it. There is one norm, but that AdaGC has
/// the whole set's after the tensor's own, and quantiles have one a unit. NaN stands for any threshold that clips nothing.
pub type Program = Box<dyn FnMut(&[f64]) -> f64>;

/// The program of a clip.
pub fn program(clip: &Clip) -> Program {
    let first = f64::from(clip.threshold as f32);
    let wide = |x: f32| f64::from(x);
    match clip.adapt {
        Some(Adapt::Mean { factor, window }) => mean(wide(factor), window as usize, first),
        Some(Adapt::Average { factor, decay }) => average(wide(factor), wide(decay), first),
        Some(Adapt::Percentile { percentile: p, window }) => percentile(wide(p), window as usize),
        Some(Adapt::ZScore { decay, z, warm_up, reaction }) => {
            zscore(wide(decay), wide(z), warm_up as usize, reaction, first)
        }
        Some(Adapt::AdaGc { factor, decay, warm_up }) => {
            let whole = f64::from(clip.total.unwrap_or(clip.threshold) as f32);
            adagc(wide(factor), wide(decay), warm_up as usize, whole)
        }
        Some(Adapt::Quantile { quantile: q, rate }) => quantile(wide(q), wide(rate), first),
        _ => Box::new(move |_| first),
    }
}

fn mean_of(norms: &[f64]) -> f64 {
    norms.iter().sum::<f64>() / norms.len() as f64
}

fn mean(factor: f64, window: usize, first: f64) -> Program {
    let mut norms: Vec<f64> = Vec::new();
    Box::new(move |norm| {
        let recent = &norms[norms.len().saturating_sub(window)..];
        let threshold = if recent.is_empty() { first } else { factor * mean_of(recent) };
        norms.push(norm[0]);
        threshold
    })
}

fn average(factor: f64, decay: f64, first: f64) -> Program {
    let mut average = None;
    Box::new(move |norm| {
        let threshold = average.map_or(first, |a: f64| factor * a);
        average = Some(average.map_or(norm[0], |a| decay * a + (1.0 - decay) * norm[0]));
        threshold
    })
}

/// numpy.percentile(norms, percent), method `linear`.
fn percentile(percent: f64, window: usize) -> Program {
    let mut norms: Vec<f64> = Vec::new();
    Box::new(move |norm| {
        norms.push(norm[0]);
        let mut recent = norms[norms.len().saturating_sub(window)..].to_vec();
        recent.sort_by(f64::total_cmp);
        let rank = percent / 100.0 * (recent.len() - 1) as f64;
        let (below, above) = (recent[rank.floor() as usize], recent[rank.ceil() as usize]);
        below + (above - below) * rank.fract()
    })
}

/// ZClip.
fn zscore(alpha: f64, z: f64, warm_up: usize, reaction: Reaction, first: f64) -> Program {
    let mut norms: Vec<f64> = Vec::new();
    let (mut mean, mut variance) = (0.0, 0.0);
    Box::new(move |norm| {
        let norm = norm[0];
        if norms.len() < warm_up {
            norms.push(norm);
            mean = mean_of(&norms);
            variance = norms.iter().map(|n| (n - mean).powi(2)).sum::<f64>() / norms.len() as f64;
            return first;
        }
        let deviation = variance.sqrt();
        let score = (norm - mean) / (deviation + 1e-6);
        let threshold = match reaction {
            _ if score <= z => f64::NAN,
            Reaction::Mean => mean,
            Reaction::Max => mean + z * deviation,
            _ => mean + z * deviation / (score / z),
        };
        let clipped = if threshold.is_nan() { norm } else { threshold };
        mean = alpha * mean + (1.0 - alpha) * clipped;
        variance = alpha * variance + (1.0 - alpha) * (clipped - mean).powi(2);
        threshold
    })
}

/// AdaGC: during the warm-up only the whole set is limited, by `whole`.
fn adagc(factor: f64, decay: f64, warm_up: usize, whole: f64) -> Program {
    let (mut gamma, mut step) = (f64::INFINITY, 0);
    Box::new(move |norms| {
        step += 1;
        if step <= warm_up {
            gamma = gamma.min(norms[0] * (whole / norms[1]).min(1.0));
            return f64::INFINITY;
        }
        let threshold = factor * gamma;
        gamma = decay * gamma + (1.0 - decay) * norms[0].min(threshold);
        threshold
    })
}

/// Andrew et al.: moves until a share of the norms is within.
fn quantile(quantile: f64, rate: f64, first: f64) -> Program {
    let mut c = first;
    Box::new(move |norms| {
        let threshold = c;
        let within = norms.iter().filter(|&&norm| norm <= c).count() as f64 / norms.len() as f64;
        c *= (-rate * (within - quantile)).exp();
        threshold
    })
}
