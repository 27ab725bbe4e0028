//! A gradient set of `verify` and what to do with it: recipe, numbers, threshold.

mod distribution;
mod entries;
mod every;
mod limits;
mod random;
pub(crate) mod recipes;
pub(crate) mod scopes;
pub(crate) mod values;

use std::fmt;

use gradclip::cpu::Trace;
use gradclip::{Clip, ClipError, NonFinite, NormType, Rule, Scope};

pub use distribution::{DISTRIBUTIONS, Distribution, data};
pub use entries::{Entries, Naming};
pub use every::{NORMS, RULES, SCOPES, clips, four_rows};
pub use limits::limits;
pub use random::Random;

use crate::budget::MANY;
use crate::gpu::Placing;
use crate::inputs::recipes::EDGES;
use crate::inputs::values::{Values, spoil};
use crate::tensor::{self, Data, Element, Named, Tensor, named};

/// A case before its numbers are made.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    pub(crate) sizes: Sizes,
    pub(crate) elements: Elements,
    pub(crate) values: Values,
    /// All tensors in one buffer, without a gap, or each in a buffer of its own.
    pub(crate) arena: bool,
    pub(crate) threshold: Threshold,
    /// Its limit on the whole set, if any, is a share of that norm.
    pub(crate) clip: Clip,
    pub(crate) seed: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Sizes {
    One(usize),
    Edges,
    Many,
    Chunks,
    /// More chunks than a workgroup has invocations.
    Long,
    /// Tensors of these shapes.
    Shapes(&'static [&'static [u64]]),
    /// This many rows of 3, 45, 1 and 2 × 2 elements.
    Rows(u64),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Elements {
    All(Element),
    Mixed,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Threshold {
    /// A share of what the rule compares with it, in the middle one of the segments.
    Share(f32),
    /// This.
    Fixed(f32),
}

/// A gradient set and what to do with it.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) tensors: Vec<Tensor>,
    pub(crate) placing: Placing,
    pub(crate) clip: Clip,
}

impl Sizes {
    fn shapes(self) -> Vec<Vec<u64>> {
        let flat = |sizes: &[usize]| sizes.iter().map(|&n| vec![n as u64]).collect();
        match self {
            Sizes::One(size) => flat(&[size]),
            Sizes::Edges => flat(&EDGES),
            Sizes::Many => (0..MANY as u64).map(|i| vec![i * 7 % 10]).collect(),
            Sizes::Chunks => flat(&[5 * 16_384 + 7, 1, 130_000, 16_384 * 2]),
            Sizes::Long => flat(&[257 * 16_384 + 5]),
            Sizes::Shapes(shapes) => shapes.iter().map(|shape| shape.to_vec()).collect(),
            Sizes::Rows(n) => vec![vec![n, 3], vec![n, 45], vec![n], vec![n, 2, 2]],
        }
    }
}

impl Case {
    /// Whether norms of results must not exceed their limits by any rounding: rows, unless asked.
    pub(crate) fn below(&self) -> bool {
        let exact = !matches!(self.clip.norm, NormType::P(_));
        let scales = !matches!(self.clip.rule, Rule::Value | Rule::Sign);
        scales && self.clip.never_above.unwrap_or(self.clip.scope == Scope::Row && exact)
    }
}

impl Recipe {
    /// What chooses its kernels: element types, placing, scope, and whether its norm is one of powers.
    pub(crate) fn kind(&self) -> String {
        let scope = match self.clip.scope {
            Scope::Unit(_) => "units",
            Scope::Row => "rows",
            _ => "tensors",
        };
        let power = matches!(self.clip.norm, NormType::P(_));
        format!("{:?} {} {scope} {power}", self.elements, self.arena)
    }

    /// Makes the numbers, and measures them where the threshold is a share of the norm.
    pub(crate) fn cook(&self) -> Case {
        let mut random = Random(self.seed);
        let shapes = self.sizes.shapes();
        let mut data = |values: Values, shift: usize| -> Vec<Data> {
            let one = |(i, shape): (usize, &Vec<u64>)| {
                values.data(&mut random, self.element(i + shift), shape.iter().product::<u64>() as usize)
            };
            shapes.iter().enumerate().map(one).collect()
        };
        let mut tensors = named(data(self.values, 0));
        if matches!(self.clip.rule, Rule::Agc { .. }) {
            let parameters = data(Values::Spread(1.0), 1);
            tensors.iter_mut().zip(parameters).for_each(|(t, data)| t.parameter = Some(data));
        }
        let at = [tensors.len() * 2 / 3, tensors.len() - 1];
        for (&tensor, &value) in at.iter().zip(self.values.non_finite()) {
            spoil(&mut tensors[tensor].data, value);
        }
        let mut case = Case::plain(tensors, &shapes, self.clip);
        case.placing = placing(self.arena);
        // What is lost is checked like everything else.
        case.clip.lossy_unscale = true;
        // Oracles compute with what the kernels compute with.
        let single = |value: f64| f64::from(value as f32);
        (case.clip.unscale, case.clip.eps) = (single(case.clip.unscale), single(case.clip.eps));
        if let Rule::Agc { eps } = &mut case.clip.rule {
            *eps = single(*eps);
        }
        case.clip.threshold = match self.threshold {
            Threshold::Fixed(threshold) => threshold.into(),
            Threshold::Share(share) => (share * case.typical()).into(),
        };
        case.clip.total = self.clip.total.map(|share| (share as f32 * case.whole()).into());
        case
    }

    fn element(&self, i: usize) -> Element {
        match self.elements {
            Elements::All(element) => element,
            Elements::Mixed => [Element::F32, Element::F16, Element::Bf16][i % 3],
        }
    }
}

/// Packed, or in buffers of their own, in some of which something else lies before them.
pub(crate) fn placing(arena: bool) -> Placing {
    if arena { Placing::PACKED } else { Placing { lead: 12, ..Placing::APART } }
}

impl Case {
    /// Tensors as they are, in one buffer. What `f16` loses counts like everything else.
    pub(crate) fn of(tensors: Vec<Tensor>, clip: Clip) -> Case {
        Case { tensors, placing: Placing::PACKED, clip: clip.lossy_unscale(true) }
    }

    /// In one buffer. Where groups matter, one has a threshold of its own, one is left out, and the rest is without.
    pub(crate) fn plain<S: AsRef<[u64]>>(mut tensors: Vec<Tensor>, shapes: &[S], clip: Clip) -> Case {
        let groups = [Some(Named::new("own", 0.5)), Some(Named::excluded("out")), None, None];
        for (i, (tensor, shape)) in tensors.iter_mut().zip(shapes).enumerate() {
            tensor.shape = Some(shape.as_ref().to_vec());
            tensor.group = groups[i % 4].filter(|_| clip.scope == Scope::Group);
        }
        Case { tensors, placing: Placing::PACKED, clip }
    }

    /// What the CPU path does to a copy.
    pub(crate) fn traced(&self) -> Result<(Trace, Vec<Tensor>), ClipError> {
        tensor::traced(&self.tensors, &self.clip)
    }

    /// Whether tensors are cut into units or rows.
    pub(crate) fn cut(&self) -> bool {
        matches!(self.clip.scope, Scope::Unit(_) | Scope::Row)
    }

    /// What the rule compares with the threshold, in the middle one of the segments that are not 0, as
    /// the CPU path measures it and without what is not finite.
    fn typical(&self) -> f32 {
        let elements: usize = self.tensors.iter().map(|t| t.data.len()).sum();
        let norms = match self.clip.scope {
            // Of tensors that differ much, some exceed a share of the whole norm and some do not.
            Scope::Global | Scope::Tensor => self.norms(Scope::Global),
            scope => self.norms(scope),
        };
        let mut norms = norms.unwrap_or_default();
        norms.retain(|&norm| norm > 0.0);
        norms.sort_by(f32::total_cmp);
        let norm = norms.get(norms.len() / 2).copied().unwrap_or(1.0);
        let of_each = (elements / norms.len().max(1)).max(1) as f32;
        let divisor = match self.clip.rule {
            Rule::Rms => of_each.sqrt(),
            Rule::Average => of_each,
            // Of parameters between -1 and 1.
            Rule::Agc { .. } => (of_each / 3.0).sqrt(),
            _ => 1.0,
        };
        (norm / divisor).min(f32::MAX)
    }

    fn whole(&self) -> f32 {
        let norms = self.norms(Scope::Global).unwrap_or_default();
        norms.first().map_or(1.0, |norm| norm.min(f32::MAX))
    }

    fn norms(&self, scope: Scope) -> Result<Vec<f32>, ClipError> {
        let clip = self.clip;
        let measure = Clip::measure().norm_type(clip.norm).unscale(clip.unscale).scope(scope);
        let (trace, _) = tensor::traced(&self.tensors, &measure.on_non_finite(NonFinite::Sanitize))?;
        Ok(trace.outcomes.iter().map(|outcome| outcome.norm).collect())
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Recipe { sizes, elements, values, threshold, clip, .. } = self;
        let buffers = if self.arena { "one buffer" } else { "a buffer each" };
        write!(f, "{sizes:?} {elements:?} {values:?}, {buffers}, {:?}, {:?}, ", clip.rule, clip.norm)?;
        write!(f, "{:?}, threshold {threshold:?}, total {:?}, ", clip.scope, clip.total)?;
        write!(f, "unscale {}, eps {}, {:?}", clip.unscale, clip.eps, clip.non_finite)
    }
}
