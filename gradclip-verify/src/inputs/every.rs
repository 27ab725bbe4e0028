//! Every rule in every scope, and a small set that goes with all of them.

use gradclip::{Clip, NormType, Rule, Scope, Units};

use crate::inputs::Random;
use crate::tensor::{Named, Tensor};

/// Every scope, units from either end.
pub const SCOPES: [Scope; 6] = [
    Scope::Global,
    Scope::Group,
    Scope::Tensor,
    Scope::Unit(Units::OutputFirst),
    Scope::Unit(Units::OutputLast),
    Scope::Row,
];
/// Every rule.
pub const RULES: [Rule; 7] =
    [Rule::Norm, Rule::Value, Rule::Rms, Rule::Average, Rule::Agc { eps: 1e-3 }, Rule::Sign, Rule::Normalize];
/// The norms that are exact.
pub const NORMS: [NormType; 3] = [NormType::Two, NormType::One, NormType::Inf];

/// Every rule in every scope with every norm, each with two of three further fields, where that validates.
pub fn clips() -> Vec<Clip> {
    let columns = Scope::Unit(Units::over(&[0]));
    let mut all = Vec::new();
    for scope in SCOPES.map(|scope| if scope == Scope::Unit(Units::OutputLast) { columns } else { scope }) {
        for rule in RULES {
            for norm in NORMS.into_iter().chain([NormType::P(3.0)]) {
                let base = if rule == Rule::Value { Clip::value(0.4) } else { Clip::global_norm(0.6) };
                let norm = if rule == Rule::Value { NormType::Inf } else { norm };
                let plain = base.norm_type(norm).scope(scope).rule(rule);
                let total = plain.total(0.5);
                for how in [plain, plain.unscale(0.3).eps(0.01), total, plain.unscale(3.0).total(2.0)] {
                    if how.validate().is_ok() && !all.contains(&how) {
                        all.push(how);
                    }
                }
            }
        }
    }
    all
}

/// Four tensors of four rows with parameters, in `f64`: large, small, of a group with a threshold, excluded. Where a group
/// with a threshold is refused, it has none.
pub fn four_rows(seed: u64, how: &Clip) -> Vec<Tensor> {
    let mut numbers = Random(seed);
    let shared = matches!(how.scope, Scope::Global | Scope::Row);
    let groups =
        [None, None, Some(Named::new("own", 0.2)).filter(|_| !shared), Some(Named::excluded("free"))];
    let shapes = [[4, 3, 1], [4, 2, 5], [4, 1, 1], [4, 6, 1]];
    let sizes = [3.0, 0.05, 1.0, 2.0];
    let mut random = |n: u64, size: f64| -> Vec<f64> { (0..n).map(|_| numbers.unit_f64() * size).collect() };
    let one = |((shape, group), size): (([u64; 3], _), f64)| {
        let n = shape.iter().product();
        let tensor = Tensor::new("g", random(n, size)).shape(&shape).parameter(random(n, 1.0));
        Tensor { group, ..tensor }
    };
    shapes.into_iter().zip(groups).zip(sizes).map(one).collect()
}
