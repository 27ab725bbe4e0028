//! The gradient sets that `verify` runs: edge sizes, magnitudes, element types, and every option
//! of a clip, from fixed seeds.

use std::fmt;

use gradclip::cpu;
use gradclip::cpu::GradMut;
use gradclip::{Clip, NonFinite, NormType, Scope};
use half::{bf16, f16};

use crate::options::norm_name;
use crate::tensor::{Data, Element, Tensor};

/// Around a column of 16 rows, a workgroup, the columns of a chunk, a chunk; and several chunks.
const EDGES: [usize; 17] =
    [0, 1, 3, 4, 5, 15, 17, 255, 256, 257, 1023, 1024, 1025, 16_383, 16_384, 16_385, 40_001];
/// Tensors of a set of many small ones: more than any adapter binds at once.
const MANY: usize = 70;

/// A case before its numbers are made.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    sizes: Sizes,
    elements: Elements,
    values: Values,
    /// All tensors in one buffer, without a gap, or each in a buffer of its own.
    pub(crate) arena: bool,
    threshold: Threshold,
    clip: Clip,
    seed: u64,
}

#[derive(Clone, Copy, Debug)]
enum Sizes {
    One(usize),
    Edges,
    Many,
    Chunks,
    /// More chunks than a workgroup has invocations.
    Long,
}

#[derive(Clone, Copy, Debug)]
enum Elements {
    All(Element),
    Mixed,
}

#[derive(Clone, Copy, Debug)]
enum Values {
    /// Evenly spread over ± this.
    Spread(f32),
    Subnormal,
    /// Small, but for a few that are 10²³ times larger.
    Spikes,
    /// Any finite bit pattern.
    Bits,
    Zeros,
    OneInf,
    OneNan,
    Both,
}

#[derive(Clone, Copy, Debug)]
enum Threshold {
    /// A share of the norm.
    Share(f32),
    /// This.
    Fixed(f32),
}

/// A gradient set and what to do with it.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) tensors: Vec<Tensor>,
    pub(crate) arena: bool,
    pub(crate) clip: Clip,
}

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
    make.recipes
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
            let mut clip = Clip::measure()
                .norm_type(norm)
                .unscale(unscales[turn % 5])
                .eps([0.0, 1e-6, 0.0][turn % 3])
                .on_non_finite(policy);
            clip.scope = scopes[turn / 3 % 2];
            let threshold = thresholds[turn % 7];
            let seed = turn as u64;
            self.recipes.push(Recipe { sizes, elements, values, arena, threshold, clip, seed });
        }
    }
}

impl Recipe {
    /// Makes the numbers, and measures them where the threshold is a share of the norm.
    pub(crate) fn cook(&self) -> Case {
        let mut random = Random(self.seed);
        let sizes = match self.sizes {
            Sizes::One(size) => vec![size],
            Sizes::Edges => EDGES.to_vec(),
            Sizes::Many => (0..MANY).map(|i| i * 7 % 10).collect(),
            Sizes::Chunks => vec![5 * 16_384 + 7, 1, 130_000, 16_384 * 2],
            Sizes::Long => vec![257 * 16_384 + 5],
        };
        let mut tensors: Vec<Tensor> = sizes
            .iter()
            .enumerate()
            .map(|(i, &size)| {
                let data = self.data(&mut random, self.element(i), size);
                Tensor { name: format!("t{i}"), data }
            })
            .collect();
        self.spoil(&mut tensors);
        let threshold = match self.threshold {
            Threshold::Fixed(threshold) => threshold,
            Threshold::Share(share) => share * self.measured(&mut tensors),
        };
        let mut clip = self.clip;
        clip.threshold = threshold;
        Case { tensors, arena: self.arena, clip }
    }

    fn element(&self, i: usize) -> Element {
        match self.elements {
            Elements::All(element) => element,
            Elements::Mixed => [Element::F32, Element::F16, Element::Bf16][i % 3],
        }
    }

    fn data(&self, random: &mut Random, element: Element, size: usize) -> Data {
        let mut bits = |_| self.bits(random, element);
        match element {
            Element::F32 => Data::F32((0..size).map(|i| f32::from_bits(bits(i))).collect()),
            Element::F16 => Data::F16((0..size).map(|i| f16::from_bits(bits(i) as u16)).collect()),
            Element::Bf16 => Data::Bf16((0..size).map(|i| bf16::from_bits(bits(i) as u16)).collect()),
        }
    }

    fn bits(&self, random: &mut Random, element: Element) -> u32 {
        let (sign, exponents) = match element {
            Element::F32 => (31, 255),
            Element::F16 => (15, 31),
            Element::Bf16 => (15, 255),
        };
        let mantissa = element.mantissa_bits();
        let raw = (random.next() >> 32) as u32;
        let packed =
            |exponent: u32| (raw & (1 << sign)) | (exponent << mantissa) | (raw & ((1 << mantissa) - 1));
        match self.values {
            Values::Zeros => raw & (1 << sign),
            Values::Subnormal => packed(0),
            Values::Bits => packed(random.below(exponents) as u32),
            Values::Spread(scale) => rounded(element, random.spread() * fit(element, scale)),
            Values::Spikes if random.below(500) == 0 => {
                rounded(element, random.spread() * fit(element, 1e20))
            }
            Values::Spikes => rounded(element, random.spread() * fit(element, 1e-3)),
            _ => rounded(element, random.spread()),
        }
    }

    /// Puts in the non-finite elements.
    fn spoil(&self, tensors: &mut [Tensor]) {
        let at = [tensors.len() * 2 / 3, tensors.len() - 1];
        let values: &[f32] = match self.values {
            Values::OneInf => &[f32::NEG_INFINITY],
            Values::OneNan => &[f32::NAN],
            Values::Both => &[f32::NAN, f32::INFINITY],
            _ => return,
        };
        for (&tensor, &value) in at.iter().zip(values) {
            match &mut tensors[tensor].data {
                Data::F32(e) => e.iter_mut().rev().take(1).for_each(|e| *e = value),
                Data::F16(e) => e.iter_mut().rev().take(1).for_each(|e| *e = f16::from_f32(value)),
                Data::Bf16(e) => e.iter_mut().rev().take(1).for_each(|e| *e = bf16::from_f32(value)),
            }
        }
    }

    /// The norm of the whole set as the CPU path measures it, without what is not finite.
    fn measured(&self, tensors: &mut [Tensor]) -> f32 {
        let mut measure = self.clip.on_non_finite(NonFinite::Sanitize);
        measure.scope = Scope::Global;
        let mut copy: Vec<Tensor> = tensors.to_vec();
        let mut grads: Vec<GradMut<'_>> = copy.iter_mut().map(Tensor::grad).collect();
        let norm = cpu::clip(&mut grads, &measure).ok().and_then(|report| report.norm());
        (norm.unwrap_or(1.0) as f32).min(f32::MAX)
    }
}

/// As large as the format can hold.
fn fit(element: Element, scale: f32) -> f32 {
    if element == Element::F16 { scale.clamp(1e-7, 6e4) } else { scale }
}

fn rounded(element: Element, value: f32) -> u32 {
    match element {
        Element::F32 => value.to_bits(),
        Element::F16 => f16::from_f32(value).to_bits().into(),
        Element::Bf16 => bf16::from_f32(value).to_bits().into(),
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Recipe { sizes, elements, values, threshold, clip, .. } = self;
        let buffers = if self.arena { "one buffer" } else { "a buffer each" };
        write!(f, "{sizes:?} {elements:?} {values:?}, {buffers}, {}, ", norm_name(clip.norm))?;
        write!(f, "{:?}, threshold {threshold:?}, ", clip.scope)?;
        write!(f, "unscale {}, eps {}, {:?}", clip.unscale, clip.eps, clip.non_finite)
    }
}

/// SplitMix64: the same numbers everywhere.
#[derive(Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (((self.next() >> 32) * n as u64) >> 32) as usize
    }

    /// From -1 to 1.
    fn spread(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let meant = matches!(recipe.values, Values::OneInf | Values::OneNan | Values::Both);
            if matches!(recipe.sizes, Sizes::Edges) {
                let case = recipe.cook();
                let finite = |t: &Tensor| (0..t.data.len()).all(|i| t.data.value(i).is_finite());
                assert_eq!(!case.tensors.iter().all(finite), meant, "{recipe}");
            }
        }
    }
}
