//! Clipping as a plain program of `f64` sums: slow, without a thought for range, and sharing no code with
//! the library.

use gradclip::{Clip, Group, NormType, Rule, Scope, Units};

use crate::inputs::Random;

/// A gradient, its parameter, and the name and threshold of its group; `None` excludes it.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Elements of the gradient.
    pub values: Vec<f64>,
    /// As many of the parameter.
    pub parameter: Vec<f64>,
    /// Four rows, of two axes.
    pub shape: [u64; 3],
    group: Option<(&'static str, Option<f64>)>,
}

impl Tensor {
    /// The group, where it has one.
    pub fn group(&self) -> Option<Group> {
        self.group.map(|(name, own)| own.map_or_else(|| Group::excluded(name), |c| Group::new(name, c)))
    }

    fn excluded(&self) -> bool {
        matches!(self.group, Some((_, None)))
    }
}

/// Every rule in every scope with every norm, each with two of three further fields, where that validates.
pub fn clips() -> Vec<Clip> {
    let columns = Scope::Unit(Units::over(&[0]));
    let units = Scope::Unit(Units::OutputFirst);
    let scopes = [Scope::Global, Scope::Group, Scope::Tensor, units, columns, Scope::Row];
    let rules = [
        Rule::Norm,
        Rule::Rms,
        Rule::Average,
        Rule::Agc { eps: 1e-3 },
        Rule::Sign,
        Rule::Normalize,
        Rule::Value,
    ];
    let norms = [NormType::One, NormType::Two, NormType::Inf, NormType::P(3.0)];
    let mut all = Vec::new();
    for scope in scopes {
        for rule in rules {
            for norm in norms {
                let base = if rule == Rule::Value { Clip::value(0.4) } else { Clip::global_norm(0.6) };
                let norm = if rule == Rule::Value { NormType::Inf } else { norm };
                let plain = base.norm_type(norm).scope(scope).rule(rule);
                for how in
                    [plain, plain.unscale(0.3).eps(0.01), plain.total(0.5), plain.unscale(3.0).total(2.0)]
                {
                    if how.validate().is_ok() && !all.contains(&how) {
                        all.push(how);
                    }
                }
            }
        }
    }
    all
}

/// Four tensors of four rows: large, small, of a group with a threshold, excluded. Where a group with a
/// threshold is refused, it has none.
pub fn random_set(seed: u64, how: &Clip) -> Vec<Tensor> {
    let mut numbers = Random(seed);
    let shared = matches!(how.scope, Scope::Global | Scope::Row);
    let groups = [None, None, Some(("own", Some(0.2))).filter(|_| !shared), Some(("free", None))];
    let shapes = [[4, 3, 1], [4, 2, 5], [4, 1, 1], [4, 6, 1]];
    let sizes = [3.0, 0.05, 1.0, 2.0];
    let mut random = |n: u64, size: f64| -> Vec<f64> { (0..n).map(|_| numbers.unit_f64() * size).collect() };
    let one = |((shape, group), size): (([u64; 3], _), f64)| {
        let n = shape.iter().product();
        Tensor { values: random(n, size), parameter: random(n, 1.0), shape, group }
    };
    shapes.into_iter().zip(groups).zip(sizes).map(one).collect()
}

/// Elements that share one limit, as tensor and place, and its threshold.
struct Segment {
    elements: Vec<(usize, usize)>,
    threshold: f64,
}

/// The segments of what is not excluded.
fn segments(tensors: &[Tensor], how: &Clip) -> Vec<Segment> {
    let key = |t: usize, place: usize| {
        let tensor = &tensors[t];
        let per_row: usize = (tensor.shape[1] * tensor.shape[2]) as usize;
        match how.scope {
            Scope::Global => (0, 0),
            Scope::Group => (tensor.group.map_or(0, |_| 1), 0),
            Scope::Tensor => (t, 0),
            Scope::Row => (0, place / per_row),
            Scope::Unit(Units::OutputFirst) => (t, place / per_row),
            // Over axis 0.
            _ => (t, place % per_row),
        }
    };
    let mut found = std::collections::BTreeMap::new();
    for (t, tensor) in tensors.iter().enumerate().filter(|(_, t)| !t.excluded()) {
        let threshold = tensor.group.and_then(|(_, own)| own).unwrap_or(how.threshold);
        for place in 0..tensor.values.len() {
            let empty = || Segment { elements: Vec::new(), threshold };
            found.entry(key(t, place)).or_insert_with(empty).elements.push((t, place));
        }
    }
    found.into_values().collect()
}

fn norm(values: impl Iterator<Item = f64>, kind: NormType) -> f64 {
    let p = match kind {
        NormType::One => 1.0,
        NormType::Two => 2.0,
        NormType::P(p) => p,
        _ => return values.fold(0.0, |m, x| x.abs().max(m)),
    };
    values.map(|x| x.abs().powf(p)).sum::<f64>().powf(1.0 / p)
}

/// What every tensor becomes.
pub fn clip_plainly(tensors: &[Tensor], how: &Clip) -> Vec<Vec<f64>> {
    let unscaled: Vec<Vec<f64>> =
        tensors.iter().map(|t| t.values.iter().map(|x| x * how.unscale).collect()).collect();
    let mut out = unscaled.clone();
    let limited =
        || unscaled.iter().zip(tensors).filter(|(_, t)| !t.excluded()).flat_map(|(v, _)| v.iter().copied());
    let scaled = |norm: f64, limit: f64| if norm > limit { limit / (norm + how.eps) } else { 1.0 };
    let total = how.total.map_or(f64::INFINITY, |most| scaled(norm(limited(), how.norm), most));
    for Segment { elements, threshold } in segments(tensors, how) {
        let own = norm(elements.iter().map(|&(t, i)| unscaled[t][i]), how.norm);
        let of_parameters = norm(elements.iter().map(|&(t, i)| tensors[t].parameter[i]), how.norm);
        let n = elements.len() as f64;
        let coefficient = match how.rule {
            Rule::Rms => scaled(own, threshold * n.sqrt()),
            Rule::Average => scaled(own, threshold * n),
            Rule::Agc { eps } => scaled(own, threshold * of_parameters.max(eps)),
            Rule::Normalize => threshold / (own + how.eps),
            _ => scaled(own, threshold),
        };
        for (t, i) in elements {
            let x = unscaled[t][i];
            out[t][i] = match how.rule {
                Rule::Value => x.clamp(-threshold, threshold),
                Rule::Sign if own > threshold => threshold * x.signum(),
                Rule::Sign => x,
                _ => x * coefficient.min(total),
            };
        }
    }
    out
}
