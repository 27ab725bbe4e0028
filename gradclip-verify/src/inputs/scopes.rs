//! The gradient sets that `verify` cuts into units and rows, and those for each rule of clipping.

use gradclip::{Clip, NonFinite, NormType, Rule, Scope, Units};

use crate::inputs::every::{NORMS, RULES};
use crate::inputs::values::Values;
use crate::inputs::{Elements, Recipe, Sizes, Threshold};
use crate::tensor::Element;

/// Every rank, odd lengths, nothing at all, and more units than a workgroup has invocations.
const SMALL: Sizes =
    Sizes::Shapes(&[&[3, 5], &[1, 1], &[257, 33], &[7], &[0, 4], &[4, 0], &[], &[3, 4, 5, 6]]);
/// Long neighbouring units: more than a column, than a chunk, and just what takes a workgroup.
const LONG: Sizes = Sizes::Shapes(&[&[2, 20_000], &[3, 16_385], &[5, 255], &[3, 256], &[4, 65]]);
/// Scattered units: more than the columns of a chunk, than a chunk.
const SCATTERED: Sizes = Sizes::Shapes(&[&[20_000, 3], &[1025, 5], &[16_385, 2]]);
/// Axes kept and summed over that alternate.
const FOUR: Sizes = Sizes::Shapes(&[&[3, 4, 5, 6], &[65, 3, 7, 7], &[3, 3, 8, 300]]);
/// What is summed over in these.
const AXES: [&[usize]; 8] = [&[0], &[1], &[3], &[0, 2], &[1, 3], &[0, 3], &[], &[0, 1, 2, 3]];
/// Around a workgroup of rows.
const ROWS: [u64; 6] = [0, 1, 255, 256, 257, 5000];

const TYPES: [Elements; 4] =
    [Elements::All(Element::F32), Elements::All(Element::F16), Elements::All(Element::Bf16), Elements::Mixed];
/// Shapes, scopes, element types and norms are crossed; rules, values, policies and thresholds take
/// turns, in lists whose lengths share no factor.
pub(crate) fn recipes() -> Vec<Recipe> {
    let by_output = [Scope::Unit(Units::OutputFirst), Scope::Unit(Units::OutputLast)];
    let mut cut: Vec<(Sizes, Scope)> = Vec::new();
    for sizes in [SMALL, LONG, SCATTERED] {
        cut.extend(by_output.map(|scope| (sizes, scope)));
    }
    cut.extend(AXES.map(|axes| (FOUR, Scope::Unit(Units::over(axes)))));
    cut.extend(ROWS.map(|n| (Sizes::Rows(n), Scope::Row)));
    let whole = [Scope::Global, Scope::Group, Scope::Tensor].map(|scope| (SMALL, scope));

    let mut recipes = Vec::new();
    for (sizes, scope) in cut.into_iter().chain(whole.repeat(3)) {
        for elements in TYPES {
            for norm in NORMS {
                recipes.push(recipe(recipes.len(), sizes, scope, elements, norm));
            }
        }
    }
    for (sizes, scope) in [(SMALL, by_output[0]), (SMALL, by_output[1]), (Sizes::Rows(257), Scope::Row)] {
        for elements in &TYPES[..2] {
            recipes.push(power(recipes.len(), sizes, scope, *elements));
        }
    }
    recipes
}

fn recipe(turn: usize, sizes: Sizes, scope: Scope, elements: Elements, norm: NormType) -> Recipe {
    use Values::{Bits, Both, OneInf, OneNan, Spikes, Spread, Subnormal, Zeros};
    let values = [
        Spread(1.0),
        OneNan,
        Spread(1e-38),
        Spikes,
        Both,
        Bits,
        Spread(1.0),
        OneInf,
        Spread(3e38),
        Subnormal,
        Zeros,
    ];
    let thresholds = [
        Threshold::Share(0.7),
        Threshold::Fixed(0.0),
        Threshold::Share(1.0),
        Threshold::Share(1.5),
        Threshold::Fixed(3e38),
    ];
    let policies = [NonFinite::Skip, NonFinite::Zero, NonFinite::Sanitize, NonFinite::Nan, NonFinite::Keep];
    let rule = match RULES[turn % 7] {
        Rule::Agc { .. } if scope == Scope::Row => Rule::Norm,
        rule => rule,
    };
    let policy = match policies[(turn / 7 + turn) % 5] {
        NonFinite::Keep if rule != Rule::Value => NonFinite::Sanitize,
        policy => policy,
    };
    let scales = !matches!(rule, Rule::Value | Rule::Sign | Rule::Normalize);
    let total = [None, Some(0.4), None, Some(1.2)][turn / 3 % 4];
    let clip = Clip::measure()
        .rule(rule)
        .norm_type(if rule == Rule::Value { NormType::Inf } else { norm })
        .scope(scope)
        .unscale([1.0, 0.3, 1.0, 1.0 / 1024.0][turn / 5 % 4])
        .eps([0.0, 1e-6, 0.0][turn / 2 % 3])
        .on_non_finite(policy);
    let limited = scales && scope != Scope::Global;
    Recipe {
        sizes,
        elements,
        values: values[turn % 11],
        // Kernels for other numbers of buffers take long to compile on software adapters.
        arena: norm != NormType::Two || turn % 2 == 1,
        threshold: thresholds[(turn / 11 + turn) % 5],
        clip: total.filter(|_| limited).map_or(clip, |share| clip.total(share)),
        seed: 10_000 + turn as u64,
    }
}

fn power(turn: usize, sizes: Sizes, scope: Scope, elements: Elements) -> Recipe {
    let clip = Clip::measure().norm_type(NormType::P(3.0)).scope(scope);
    let (values, threshold) = (Values::Spikes, Threshold::Share(0.7));
    Recipe { sizes, elements, values, arena: true, threshold, clip, seed: 10_000 + turn as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rotation must not leave out what the lists promise.
    #[test]
    fn every_rule_meets_every_scope_and_policy() {
        let recipes = recipes();
        let seen = |test: &dyn Fn(&Recipe) -> bool| assert!(recipes.iter().any(test));
        let cut = |r: &Recipe| matches!(r.clip.scope, Scope::Unit(_) | Scope::Row);
        for rule in RULES {
            let is = |r: &Recipe| std::mem::discriminant(&r.clip.rule) == std::mem::discriminant(&rule);
            for norm in NORMS.into_iter().filter(|n| rule != Rule::Value || *n == NormType::Inf) {
                for arena in [true, false].into_iter().filter(|a| *a || norm == NormType::Two) {
                    seen(&|r| is(r) && cut(r) && r.clip.norm == norm && r.arena == arena);
                }
            }
            for scope in [Scope::Global, Scope::Group, Scope::Tensor] {
                seen(&|r| is(r) && r.clip.scope == scope);
            }
            for policy in [NonFinite::Skip, NonFinite::Zero, NonFinite::Sanitize, NonFinite::Nan] {
                let offending = |r: &Recipe| !r.values.non_finite().is_empty();
                seen(&|r| is(r) && cut(r) && r.clip.non_finite == policy && offending(r));
            }
        }
        recipes.iter().for_each(|r| assert!(r.cook().clip.validate().is_ok(), "{r}"));
    }
}
