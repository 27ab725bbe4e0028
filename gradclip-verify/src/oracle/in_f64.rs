//! Clipping in plain f64 arithmetic, element by element from shapes and names alone.

use gradclip::{NonFinite, NormType, Rule, Scope};

use crate::inputs::Case;
use crate::oracle::segments::Segments;
use crate::tally::ulp;
use crate::tensor::{Data, Element};

/// What some elements add up to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Measured {
    sum: f64,
    largest: f64,
    pub(crate) elements: u64,
    pub(crate) infinite: bool,
    pub(crate) nan: bool,
}

impl Measured {
    /// An element whose product with `unscale` no `f32` holds counts as infinite.
    fn add(&mut self, value: f64, unscale: f64, p: f64) {
        let value = value.abs();
        self.elements += 1;
        self.nan |= value.is_nan();
        let infinite = unscales_to_infinity(value, unscale);
        self.infinite |= infinite;
        if !infinite && !value.is_nan() {
            // f64 holds these powers of any f32, for the p that are tried.
            self.sum += if p == 2.0 { value * value } else { value.powf(p) };
            self.largest = self.largest.max(value);
        }
    }

    pub(crate) fn of(data: &Data, unscale: f64, norm: NormType) -> Measured {
        let mut measured = Measured::default();
        (0..data.len()).for_each(|i| measured.add(data.value(i), unscale, power_of(norm)));
        measured
    }

    pub(crate) fn offends(&self) -> bool {
        self.nan || self.infinite
    }

    /// The norm, of the finite elements or of all.
    pub(crate) fn norm(&self, norm: NormType, finite: bool) -> f64 {
        match norm {
            _ if self.nan && !finite => f64::NAN,
            _ if self.infinite && !finite => f64::INFINITY,
            NormType::Inf => self.largest,
            _ => self.sum.powf(1.0 / power_of(norm)),
        }
    }
}

/// Whether a product of two f32, which an f64 holds exactly, is rounded to an infinite f32.
pub(crate) fn unscales_to_infinity(value: f64, unscale: f64) -> bool {
    value.is_infinite() || ((value * unscale) as f32).is_infinite()
}

fn power_of(norm: NormType) -> f64 {
    match norm {
        NormType::One => 1.0,
        NormType::P(p) => f64::from(p as f32),
        _ => 2.0,
    }
}

/// What is limited by itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) gradients: Measured,
    parameters: Measured,
    threshold: f32,
    /// Measured and unscaled, but never clipped.
    pub(crate) excluded: bool,
}

impl Segment {
    pub(crate) fn policy(&self, case: &Case) -> NonFinite {
        if self.excluded { NonFinite::Skip } else { case.clip.non_finite }
    }

    pub(crate) fn rule(&self, case: &Case) -> Rule {
        if self.excluded { Rule::Norm } else { case.clip.rule }
    }

    /// Of the unscaled gradients, as the policy counts them.
    pub(crate) fn norm(&self, case: &Case) -> f64 {
        let finite = self.policy(case) == NonFinite::Sanitize;
        self.gradients.norm(case.clip.norm, finite) * case.clip.unscale
    }

    /// What is asked, whatever the rule makes of it.
    pub(crate) fn threshold(&self) -> f64 {
        self.threshold.into()
    }

    /// The largest norm allowed. Limits that the elements' number makes are f32.
    pub(crate) fn limit(&self, case: &Case) -> f64 {
        let (threshold, n) = (f64::from(self.threshold), self.gradients.elements.max(1) as f64);
        match self.rule(case) {
            Rule::Rms => rounded(threshold * n.sqrt()),
            Rule::Average => rounded(threshold * n),
            Rule::Agc { eps } => threshold * self.parameters.norm(case.clip.norm, true).max(eps),
            _ => threshold,
        }
    }
}

/// Rounds to the 24 bits of an f32, also above its largest.
pub(crate) fn rounded(value: f64) -> f64 {
    let unit = ulp(Element::F32, value);
    if value.is_finite() { (value / unit).round_ties_even() * unit } else { value }
}

/// The segments of a case, and which elements belong to each.
pub(crate) struct Exact {
    pub(crate) parts: Segments,
    pub(crate) segments: Vec<Segment>,
    /// All that is not excluded, where the whole set has a limit too.
    pub(crate) total: Option<Segment>,
}

impl Exact {
    pub(crate) fn of(case: &Case) -> Exact {
        let parts = Segments::of(&case.tensors, case.clip.scope);
        let plain = |threshold| Segment {
            gradients: Measured::default(),
            parameters: Measured::default(),
            threshold,
            excluded: false,
        };
        let mut segments = vec![plain(case.clip.threshold as f32); parts.count];
        let mut total = case.clip.total.map(|total| plain(total as f32));
        let p = power_of(case.clip.norm);
        for (t, tensor) in case.tensors.iter().enumerate() {
            if let (Some(named), Scope::Group) = (&tensor.group, case.clip.scope) {
                let segment = &mut segments[parts.at(t, 0)];
                segment.threshold = named.threshold.map_or(f32::INFINITY, |threshold| threshold as f32);
                segment.excluded = named.threshold.is_none();
            }
            for e in 0..tensor.data.len() {
                let segment = &mut segments[parts.at(t, e)];
                segment.gradients.add(tensor.data.value(e), case.clip.unscale, p);
                if let Some(parameters) = &tensor.parameter {
                    segment.parameters.add(parameters.value(e), 1.0, p);
                }
                if let Some(total) = total.as_mut().filter(|_| !segment.excluded) {
                    total.gradients.add(tensor.data.value(e), case.clip.unscale, p);
                }
            }
        }
        Exact { parts, segments, total }
    }
}
