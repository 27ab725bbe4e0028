//! Thresholds that follow earlier norms, in plain `f64`: what the papers and libraries say, norm after norm.

use gradclip::{Adapt, Aggc, Clip, Reaction};

/// The rule of one limit: given the norms of a step, the threshold that held in it. There is one norm, but that AdaGC has
/// the whole set's after the tensor's own, and quantiles have one a unit. NaN stands for any threshold that clips nothing.
pub type Program = Box<dyn FnMut(&[f64]) -> f64>;

/// The program of a clip.
pub fn program(clip: &Clip) -> Program {
    let single = |bound: Option<f64>, none: f64| bound.map_or(none, |bound| f64::from(bound as f32));
    let (least, most) = (single(clip.at_least, 0.0), single(clip.at_most, f64::INFINITY));
    // NaN stays: of norms that nothing reduces, the upper bound says what does.
    let bounds = move |threshold: f64, norm: f64| match threshold.is_nan() {
        true if norm > most => most,
        true => threshold,
        false => threshold.max(least).min(most),
    };
    let first = bounds(f64::from(clip.threshold as f32), 0.0);
    let wide = |x: f32| f64::from(x);
    let mut warm = if let Some(Adapt::AdaGc { warm_up, .. }) = clip.adapt { warm_up } else { 0 };
    let mut rule: Program = match clip.adapt {
        Some(Adapt::Mean { factor, window }) => mean(wide(factor), window as usize, first),
        Some(Adapt::Average { factor, decay }) => average(wide(factor), wide(decay), first),
        Some(Adapt::Percentile { percentile: p, window }) => percentile(wide(p), window as usize, None),
        Some(Adapt::PastPercentile { percentile: p, window }) => {
            percentile(wide(p), window as usize, Some(first))
        }
        Some(Adapt::ZScore { decay, z, warm_up, reaction }) => {
            zscore(wide(decay), wide(z), warm_up as usize, reaction, (first, Box::new(bounds)))
        }
        Some(Adapt::AdaGc { factor, decay, warm_up }) => {
            let whole = f64::from(clip.total.unwrap_or(clip.threshold) as f32);
            adagc(wide(factor), wide(decay), warm_up as usize, whole, Box::new(bounds))
        }
        Some(Adapt::Quantile { quantile: q, rate }) => quantile(wide(q), wide(rate), first, Box::new(bounds)),
        Some(Adapt::Aggc(aggc)) => {
            let mut interval = interval(aggc, first, Box::new(bounds));
            return Box::new(move |norm| interval(norm[0]).1);
        }
        _ => Box::new(move |_| first),
    };
    // Those that remember what they left have bounded it themselves.
    Box::new(move |norms| {
        let threshold = rule(norms);
        if warm > 0 {
            warm -= 1;
            return threshold;
        }
        bounds(threshold, norms[0])
    })
}

/// A threshold within its bounds, given the norm as well.
type Bounds = Box<dyn Fn(f64, f64) -> f64>;

/// AGGC: given a norm, the lower and the upper end of its interval. Where nothing limits, the upper end is infinite.
pub fn interval(aggc: Aggc, first: f64, bounds: Bounds) -> Box<dyn FnMut(f64) -> (f64, f64)> {
    let wide = |x: f32| f64::from(x);
    let Aggc { low, high, decay, min_norm, max_up_scale, max_down_scale, from_zero, .. } = aggc;
    let mut average = if from_zero { Some(0.0) } else { None };
    Box::new(move |norm| {
        let known = average.unwrap_or(0.0);
        let mut upper = if average.is_some() { wide(high) * known } else { first };
        if average.is_some() && upper == 0.0 {
            upper = f64::INFINITY;
        }
        let upper =
            bounds(upper.max(if average.is_some() { wide(max_down_scale) * norm } else { 0.0 }), norm);
        let mut lower = wide(min_norm).max(wide(low) * known);
        if max_up_scale > 0.0 {
            lower = lower.min(wide(max_up_scale) * norm);
        }
        lower = lower.min(upper);
        let left = if norm > upper {
            upper
        } else if norm > 0.0 {
            norm.max(lower)
        } else {
            0.0
        };
        average = Some(average.map_or(left, |a: f64| wide(decay) * a + (1.0 - wide(decay)) * left));
        (lower, upper)
    })
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
fn percentile(percent: f64, window: usize, past: Option<f64>) -> Program {
    let mut norms: Vec<f64> = Vec::new();
    Box::new(move |norm| {
        norms.push(norm[0]);
        // This step's is the last one.
        let known = norms.len() - usize::from(past.is_some());
        let mut recent = norms[known.saturating_sub(window)..known].to_vec();
        if let (Some(first), true) = (past, recent.is_empty()) {
            return first;
        }
        recent.sort_by(f64::total_cmp);
        let rank = percent / 100.0 * (recent.len() - 1) as f64;
        let (below, above) = (recent[rank.floor() as usize], recent[rank.ceil() as usize]);
        below + (above - below) * rank.fract()
    })
}

/// ZClip.
fn zscore(alpha: f64, z: f64, warm_up: usize, reaction: Reaction, (first, bounds): (f64, Bounds)) -> Program {
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
        let threshold = bounds(threshold, norm);
        let clipped = if threshold.is_nan() { norm } else { threshold };
        mean = alpha * mean + (1.0 - alpha) * clipped;
        variance = alpha * variance + (1.0 - alpha) * (clipped - mean).powi(2);
        threshold
    })
}

/// AdaGC: during the warm-up only the whole set is limited, by `whole`.
fn adagc(factor: f64, decay: f64, warm_up: usize, whole: f64, bounds: Bounds) -> Program {
    let (mut gamma, mut step) = (f64::INFINITY, 0);
    Box::new(move |norms| {
        step += 1;
        if step <= warm_up {
            gamma = gamma.min(norms[0] * (whole / norms[1]).min(1.0));
            return f64::INFINITY;
        }
        let threshold = bounds(factor * gamma, norms[0]);
        gamma = decay * gamma + (1.0 - decay) * norms[0].min(threshold);
        threshold
    })
}

/// Andrew et al.: moves until a share of the norms is within.
fn quantile(quantile: f64, rate: f64, first: f64, bounds: Bounds) -> Program {
    let mut c = first;
    Box::new(move |norms| {
        let threshold = c;
        let within = norms.iter().filter(|&&norm| norm <= c).count() as f64 / norms.len() as f64;
        c = bounds(c * (-rate * (within - quantile)).exp(), 0.0);
        threshold
    })
}
