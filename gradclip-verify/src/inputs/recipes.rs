//! The gradient sets that `verify` clips whole: edge sizes, magnitudes, element types, and every
//! option of a clip.

use gradclip::{Clip, NonFinite, NormType, Scope};

use crate::inputs::scopes;
use crate::inputs::values::Values;
use crate::inputs::{Elements, Recipe, Sizes, Threshold};
use crate::tensor::Element;

/// Around a column of 16 rows, a workgroup, the columns of a chunk, a chunk; and several chunks.
pub(crate) const EDGES: [usize; 17] =
    [0, 1, 3, 4, 5, 15, 17, 255, 256, 257, 1023, 1024, 1025, 16_383, 16_384, 16_385, 40_001];

/// All recipes. Norm types, layouts, values and element types are crossed; scopes, thresholds and
/// factors take turns. Only a few kinds of values go into buffers of their own, which cost time and
/// differ in addresses alone.
pub(crate) fn recipes() -> Vec<Recipe> {
    use Elements::{All, Mixed};
    use Values::{Bits, Both, OneInf, OneNan, Spikes, Spread, Subnormal, Zeros};
    let values =
        [1.0, 1e-38, 1e-30, 1e30, 3e38].map(Spread).into_iter().chain([Subnormal, Spikes, Bits, Zeros]);
    let finite: Vec<Values> = values.collect();
    let mut make = Make { recipes: Vec::new() };
    let types = [All(Element::F32), All(Element::F16), All(Element::Bf16), Mixed];
    for elements in &types[..3] {
        for size in EDGES {
            make.add(Sizes::One(size), *elements, Spread(1.0), NormType::Two);
        }
    }
    for elements in types {
        for norm in [NormType::Two, NormType::One, NormType::Inf] {
            for sizes in [Sizes::Edges, Sizes::Many, Sizes::Chunks] {
                finite.iter().for_each(|v| make.add(sizes, elements, *v, norm));
            }
        }
        for norm in [NormType::P(0.5), NormType::P(3.0)] {
            finite.iter().for_each(|v| make.add(Sizes::Edges, elements, *v, norm));
        }
        let policies = [NonFinite::Skip, NonFinite::Zero, NonFinite::Sanitize, NonFinite::Nan];
        for policy in policies {
            for values in [OneInf, OneNan, Both] {
                for norm in [NormType::Two, NormType::Inf] {
                    make.add_with(Sizes::Edges, elements, values, norm, policy);
                }
                make.add_with(Sizes::Chunks, elements, values, NormType::One, policy);
            }
        }
    }
    for norm in [NormType::Two, NormType::One, NormType::Inf] {
        make.add_with(Sizes::Long, types[0], OneInf, norm, NonFinite::Sanitize);
    }
    make.recipes.into_iter().chain(scopes::recipes()).collect()
}

struct Make {
    recipes: Vec<Recipe>,
}

impl Make {
    fn add(&mut self, sizes: Sizes, elements: Elements, values: Values, norm: NormType) {
        self.add_with(sizes, elements, values, norm, NonFinite::Skip);
    }

    fn add_with(
        &mut self,
        sizes: Sizes,
        elements: Elements,
        values: Values,
        norm: NormType,
        policy: NonFinite,
    ) {
        let apart = matches!(values, Values::Spread(1.0) | Values::Spikes | Values::OneNan | Values::Both);
        for arena in [true, false].into_iter().filter(|&arena| arena || apart) {
            let turn = self.recipes.len();
            // The lists' lengths share no factor, so that all combinations come up.
            let thresholds = [
                Threshold::Share(0.3),
                Threshold::Share(1.0),
                Threshold::Fixed(1e-30),
                Threshold::Share(0.01),
                Threshold::Fixed(f32::INFINITY),
                Threshold::Share(2.0),
                Threshold::Fixed(0.0),
            ];
            let scopes = [Scope::Global, Scope::Tensor];
            let unscales = [1.0, 1.0 / 1024.0, 0.3, 1.0, 3.0];
            let clip = Clip::measure()
                .norm_type(norm)
                .scope(scopes[turn / 3 % 2])
                .unscale(unscales[turn % 5])
                .eps([0.0, 1e-6, 0.0][turn % 3])
                .on_non_finite(policy);
            let threshold = thresholds[turn % 7];
            let seed = turn as u64;
            self.recipes.push(Recipe { sizes, elements, values, arena, threshold, clip, seed });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Tensor;

    /// Rotation must not leave out what the lists promise.
    #[test]
    fn every_option_comes_up_with_every_other() {
        let recipes = recipes();
        let seen = |test: &dyn Fn(&Recipe) -> bool| recipes.iter().any(test);
        for arena in [true, false] {
            for scope in [Scope::Global, Scope::Tensor] {
                for norm in [NormType::One, NormType::Two, NormType::Inf] {
                    assert!(seen(&|r| r.arena == arena && r.clip.scope == scope && r.clip.norm == norm));
                }
                for policy in [NonFinite::Zero, NonFinite::Sanitize, NonFinite::Nan] {
                    assert!(seen(&|r| r.arena == arena
                        && r.clip.scope == scope
                        && r.clip.non_finite == policy));
                }
            }
        }
        assert!(seen(&|r| r.clip.unscale == 0.3 && r.clip.eps > 0.0));
    }

    #[test]
    fn values_are_finite_unless_meant_otherwise() {
        for recipe in recipes() {
            let meant = !recipe.values.non_finite().is_empty();
            if matches!(recipe.sizes, Sizes::Edges) {
                let case = recipe.cook();
                let finite = |t: &Tensor| (0..t.data.len()).all(|i| t.data.value(i).is_finite());
                assert_eq!(!case.tensors.iter().all(finite), meant, "{recipe}");
            }
        }
    }
}
