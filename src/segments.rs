//! Which tensor, or which unit of it, belongs to which segment; and what each is limited to.
//!
//! Pure data, the same for GPU and CPU path.

mod view;

use std::sync::Arc;

use crate::clip::{Clip, NonFinite, Rule, Scope, Units};
use crate::error::ClipError;
use crate::grad::{DType, Group};
use crate::layout::{
    POLICY_KEEP, POLICY_NAN, POLICY_SANITIZE, POLICY_SKIP, POLICY_ZERO, RULE_AGC, RULE_FREE, RULE_NORM,
    RULE_NORMALIZE, RULE_SIGN, RULE_VALUE, Setting,
};

pub(crate) use view::UnitView;

/// What is known of a tensor before anything is measured.
#[derive(Clone, Debug)]
pub(crate) struct TensorInfo {
    pub(crate) name: Arc<str>,
    pub(crate) dtype: DType,
    pub(crate) elements: u64,
    pub(crate) shape: Option<Box<[u64]>>,
    pub(crate) group: Option<Group>,
    pub(crate) has_parameter: bool,
}

/// Which segments a tensor belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    One(u32),
    /// Unit `u` belongs to segment `first + u`.
    Units {
        first: u32,
        view: UnitView,
    },
}

impl Owner {
    /// The same, `by` segments further.
    pub(crate) fn shifted(self, by: u32) -> Owner {
        match self {
            Owner::One(segment) => Owner::One(segment + by),
            Owner::Units { first, view } => Owner::Units { first: first + by, view },
        }
    }

    /// Its first segment.
    pub(crate) fn first(self) -> u32 {
        match self {
            Owner::One(segment) => segment,
            Owner::Units { first, .. } => first,
        }
    }
}

/// Segments that share one limit.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Limit {
    pub(crate) first: u32,
    pub(crate) segments: u32,
    /// Elements of each segment.
    elements: u64,
    threshold: Option<f32>,
    excluded: bool,
    /// Name of the group, if it has one.
    pub(crate) name: Option<Arc<str>>,
}

/// The segments of a set of tensors.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Segments {
    pub(crate) owners: Vec<Owner>,
    /// Number of segments, that of the whole set not counted.
    pub(crate) count: u32,
    /// One a segment; one a tensor for units; one for rows.
    pub(crate) limits: Vec<Limit>,
    /// Whether there is a segment of the whole set besides, the one after the others.
    pub(crate) total: bool,
    /// Whether segments of the parameters follow, as many and in the same order.
    pub(crate) parameters: bool,
    /// Tensors in the order of their sums: segment by segment, excluded ones last.
    pub(crate) order: Vec<u32>,
    /// How many in that order are not excluded.
    pub(crate) limited: u32,
}

impl Segments {
    pub(crate) fn new(tensors: &[TensorInfo], clip: &Clip) -> Result<Segments, ClipError> {
        clip.validate()?;
        let parameters = matches!(clip.rule, Rule::Agc { .. });
        if let Some(t) = tensors.iter().find(|t| parameters && !t.has_parameter) {
            return Err(wrong(t, "its parameter, for adaptive gradient clipping", "none"));
        }
        let (owners, limits) = match clip.scope {
            Scope::Global => whole(tensors),
            Scope::Group => groups(tensors, clip)?,
            Scope::Tensor => each(tensors),
            Scope::Unit(units) => unit_by_unit(tensors, units)?,
            Scope::Row => row_by_row(tensors)?,
        };
        let excluded = |t: usize| clip.scope == Scope::Group && limits[owners[t].first() as usize].excluded;
        let mut order: Vec<u32> = (0..tensors.len() as u32).collect();
        if clip.scope == Scope::Group {
            order.sort_by_key(|&t| (excluded(t as usize), owners[t as usize].first()));
        }
        Ok(Segments {
            count: limits.iter().map(|l| l.segments).sum(),
            limited: (0..tensors.len()).filter(|&t| !excluded(t)).count() as u32,
            total: clip.total.is_some() || matches!(clip.adapt, Some(crate::Adapt::AdaGc { .. })),
            parameters,
            owners,
            limits,
            order,
        })
    }

    /// Segments that outcomes are decided for.
    pub(crate) fn decided(&self) -> u32 {
        self.count + u32::from(self.total)
    }

    /// Segments that are summed.
    pub(crate) fn summed(&self) -> u32 {
        self.decided() + if self.parameters { self.count } else { 0 }
    }

    /// Whether tensors are cut into units.
    pub(crate) fn cut(&self) -> bool {
        self.owners.iter().any(|o| matches!(o, Owner::Units { .. }))
    }

    /// The settings of all limits, that of the whole set last.
    pub(crate) fn settings(&self, clip: &Clip) -> Vec<Setting> {
        let own: Vec<f32> = self.limits.iter().map(|l| l.threshold.unwrap_or(clip.threshold)).collect();
        self.settings_with(clip, &own)
    }

    /// As [`Segments::settings`], with one threshold a limit instead.
    pub(crate) fn settings_with(&self, clip: &Clip, thresholds: &[f32]) -> Vec<Setting> {
        let mut settings: Vec<Setting> = self
            .limits
            .iter()
            .zip(thresholds)
            .map(|(limit, &threshold)| {
                let setting = setting(clip, threshold, limit.elements);
                // Measured and unscaled, whatever the rule.
                let free = Setting { policy: POLICY_SKIP, rule: RULE_FREE, total: 0, ..setting };
                if limit.excluded { free } else { setting }
            })
            .collect();
        if self.total {
            let plain = Clip { rule: Rule::Norm, ..*clip };
            settings.push(Setting { total: 0, ..setting(&plain, clip.total.unwrap_or(f32::INFINITY), 1) });
        }
        settings
    }
}

impl Limit {
    fn new(first: u32, segments: u32, elements: u64) -> Limit {
        Limit { first, segments, elements, threshold: None, excluded: false, name: None }
    }
}

fn setting(clip: &Clip, threshold: f32, elements: u64) -> Setting {
    let n = elements.max(1) as f64;
    let limit = match clip.rule {
        Rule::Rms => f64::from(threshold) * n.sqrt(),
        Rule::Average => f64::from(threshold) * n,
        _ => f64::from(threshold),
    };
    // An f64 holds the product; an f32 only 2^64 times less. No average is above f32::MAX.
    let lift = if limit.is_finite() && limit > f64::from(f32::MAX) { 64 } else { 0 };
    Setting {
        // -0 passes validation, and compares as a huge integer.
        threshold: (limit / 2f64.powi(lift)).abs() as f32,
        lift,
        unscale: clip.unscale,
        eps: clip.eps.abs(),
        floor: if let Rule::Agc { eps } = clip.rule { eps.abs() } else { 0.0 },
        policy: match clip.non_finite {
            NonFinite::Skip => POLICY_SKIP,
            NonFinite::Zero => POLICY_ZERO,
            NonFinite::Sanitize => POLICY_SANITIZE,
            NonFinite::Nan => POLICY_NAN,
            NonFinite::Keep => POLICY_KEEP,
        },
        rule: match clip.rule {
            Rule::Norm | Rule::Rms | Rule::Average => RULE_NORM,
            Rule::Value => RULE_VALUE,
            Rule::Agc { .. } => RULE_AGC,
            Rule::Sign => RULE_SIGN,
            Rule::Normalize => RULE_NORMALIZE,
        },
        total: 1,
    }
}

fn wrong(tensor: &TensorInfo, required: impl Into<String>, given: impl Into<String>) -> ClipError {
    ClipError::Tensor { tensor: tensor.name.to_string(), required: required.into(), given: given.into() }
}

type Parted = (Vec<Owner>, Vec<Limit>);

/// A global segment exists even without tensors: the norm of nothing is 0.
fn whole(tensors: &[TensorInfo]) -> Parted {
    let elements = tensors.iter().fold(0u64, |sum, t| sum.saturating_add(t.elements));
    (vec![Owner::One(0); tensors.len()], vec![Limit::new(0, 1, elements)])
}

fn each(tensors: &[TensorInfo]) -> Parted {
    let numbered = || tensors.iter().zip(0u32..);
    (
        numbered().map(|(_, i)| Owner::One(i)).collect(),
        numbered().map(|(t, i)| Limit::new(i, 1, t.elements)).collect(),
    )
}

/// Groups in the order in which they are met.
fn groups(tensors: &[TensorInfo], clip: &Clip) -> Result<Parted, ClipError> {
    let quantile = matches!(clip.adapt, Some(crate::Adapt::Quantile { .. }));
    let mut limits: Vec<Limit> = Vec::new();
    let mut owners = Vec::with_capacity(tensors.len());
    for t in tensors {
        let name = t.group.as_ref().map(|g| g.name.clone());
        // No group is the clip's own threshold, an excluded one infinity.
        let threshold = t.group.as_ref().map(|g| g.threshold.unwrap_or(f32::INFINITY));
        if let Some(given) = threshold.filter(|t| t.is_nan() || *t < 0.0) {
            return Err(ClipError::Threshold { given });
        }
        let excluded = t.group.as_ref().is_some_and(|g| g.threshold.is_none());
        if quantile && !excluded && threshold.is_some_and(|t| t == 0.0 || t.is_infinite()) {
            let (what, required) = ("Adapt::Quantile", "first thresholds of groups above 0 and finite");
            return Err(ClipError::Combination { what, required });
        }
        let found = limits.iter().position(|l| l.name == name);
        let i = found.unwrap_or_else(|| {
            let plain = Limit::new(limits.len() as u32, 1, 0);
            limits.push(Limit { threshold, excluded, name: name.clone(), ..plain });
            limits.len() - 1
        });
        if (limits[i].threshold, limits[i].excluded) != (threshold, excluded) {
            let own = |threshold: Option<f32>, excluded: bool| threshold.filter(|_| !excluded);
            let (first, second) = (own(limits[i].threshold, limits[i].excluded), own(threshold, excluded));
            return Err(ClipError::Group { name: name.unwrap_or_default().to_string(), first, second });
        }
        limits[i].elements = limits[i].elements.saturating_add(t.elements);
        owners.push(Owner::One(i as u32));
    }
    Ok((owners, limits))
}

fn shape_of(t: &TensorInfo) -> Result<&[u64], ClipError> {
    let Some(shape) = t.shape.as_deref() else {
        return Err(wrong(t, "a shape, for units and rows", "none"));
    };
    let product = shape.iter().try_fold(1u64, |product, &n| product.checked_mul(n));
    if product != Some(t.elements) {
        return Err(wrong(t, format!("a shape of {} elements", t.elements), format!("{shape:?}")));
    }
    // Positions in a tensor are words on the GPU.
    if t.elements > u64::from(u32::MAX) {
        return Err(wrong(t, "fewer than 2^32 elements, for units and rows", t.elements.to_string()));
    }
    Ok(shape)
}

fn unit_by_unit(tensors: &[TensorInfo], units: Units) -> Result<Parted, ClipError> {
    let (mut owners, mut limits) = (Vec::new(), Vec::new());
    let mut first = 0u32;
    for t in tensors {
        let shape = shape_of(t)?;
        let view =
            UnitView::of(shape, units).map_err(|required| wrong(t, required, format!("shape {shape:?}")))?;
        let count = if t.elements == 0 { 0 } else { view.units as u32 };
        owners.push(Owner::Units { first, view: UnitView { units: count.into(), ..view } });
        limits.push(Limit::new(first, count, view.len));
        first = first.checked_add(count).ok_or_else(|| wrong(t, "fewer than 2^32 units in all", "more"))?;
    }
    Ok((owners, limits))
}

fn row_by_row(tensors: &[TensorInfo]) -> Result<Parted, ClipError> {
    let mut owners = Vec::new();
    let mut elements = 0;
    let mut rows = None;
    for t in tensors {
        let shape = shape_of(t)?;
        let given = shape.first().copied();
        let required = *rows.get_or_insert(given.unwrap_or(0));
        if given != Some(required) {
            return Err(wrong(
                t,
                format!("{required} rows, as the first tensor has"),
                format!("shape {shape:?}"),
            ));
        }
        let len = t.elements.checked_div(required).unwrap_or(0);
        let view = UnitView::new(&[required, len], |axis| axis == 1);
        // Two axes never alternate more than four times.
        owners.extend(
            view.map(|view| Owner::Units { first: 0, view: UnitView { units: required, len, ..view } }),
        );
        elements += len;
    }
    Ok((owners, vec![Limit::new(0, rows.unwrap_or(0) as u32, elements)]))
}
