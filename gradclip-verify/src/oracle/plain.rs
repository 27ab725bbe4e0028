//! Clipping as a plain program of `f64` sums: slow, without a thought for range or for what is not finite, and sharing no
//! code with the library.

use gradclip::{Clip, NormType, Rule};

use crate::oracle::segments::Segments;
use crate::tensor::Tensor;

/// What becomes of some tensors.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Their elements.
    pub values: Vec<Vec<f64>>,
    /// Segments whose norm is above their own limit.
    pub clipped: usize,
}

/// A norm of values.
pub fn norm(values: impl Iterator<Item = f64>, kind: NormType) -> f64 {
    let p = match kind {
        NormType::One => 1.0,
        NormType::Two => return values.map(|x| x * x).sum::<f64>().sqrt(),
        NormType::P(p) if p.is_finite() => p,
        _ => return values.fold(0.0, |m, x| x.abs().max(m)),
    };
    values.map(|x| x.abs().powf(p)).sum::<f64>().powf(1.0 / p)
}

/// Elements that share one limit, as tensor and place, and its threshold.
#[derive(Clone, Default)]
struct Segment {
    elements: Vec<(usize, usize)>,
    threshold: f64,
}

/// The segments of what is not excluded.
fn segments(tensors: &[Tensor], how: &Clip) -> Vec<Segment> {
    let parts = Segments::of(tensors, how.scope);
    let mut segments = vec![Segment::default(); parts.count];
    for (t, tensor) in tensors.iter().enumerate().filter(|(_, t)| !t.excluded()) {
        let threshold = tensor.group.and_then(|named| named.threshold).unwrap_or(how.threshold);
        for place in 0..tensor.data.len() {
            let segment = &mut segments[parts.at(t, place)];
            segment.elements.push((t, place));
            segment.threshold = threshold;
        }
    }
    segments
}

/// What every tensor becomes.
pub fn clip(tensors: &[Tensor], how: &Clip) -> Answer {
    let unscaled: Vec<Vec<f64>> =
        tensors.iter().map(|t| t.data.values().map(|x| x * how.unscale).collect()).collect();
    let parameter = |t: usize, i: usize| tensors[t].parameter.as_ref().map_or(0.0, |p| p.value(i));
    let mut answer = Answer { values: unscaled.clone(), clipped: 0 };
    let limited =
        || unscaled.iter().zip(tensors).filter(|(_, t)| !t.excluded()).flat_map(|(v, _)| v.iter().copied());
    let scaled = |norm: f64, limit: f64| if norm > limit { limit / (norm + how.eps) } else { 1.0 };
    let total = how.total.map_or(f64::INFINITY, |most| scaled(norm(limited(), how.norm), most));
    for Segment { elements, threshold } in segments(tensors, how) {
        let own = norm(elements.iter().map(|&(t, i)| unscaled[t][i]), how.norm);
        let of_parameters = norm(elements.iter().map(|&(t, i)| parameter(t, i)), how.norm);
        let n = elements.len() as f64;
        let limit = match how.rule {
            Rule::Rms => threshold * n.sqrt(),
            Rule::Average => threshold * n,
            Rule::Agc { eps } => threshold * of_parameters.max(eps),
            _ => threshold,
        };
        let coefficient = match how.rule {
            Rule::Normalize => limit / (own + how.eps),
            // The peers' least divisor.
            Rule::Agc { .. } if own > limit => limit / (own + how.eps).max(1e-6),
            _ => scaled(own, limit),
        };
        answer.clipped += usize::from(own > limit);
        for (t, i) in elements {
            let x = unscaled[t][i];
            answer.values[t][i] = match how.rule {
                Rule::Value => x.clamp(-threshold, threshold),
                Rule::Sign if own > threshold => threshold * x.signum(),
                Rule::Sign => x,
                _ => x * coefficient.min(total),
            };
        }
    }
    answer
}
