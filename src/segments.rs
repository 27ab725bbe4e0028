//! Which tensor, or which unit of it, belongs to which segment; and what each is limited to.
//!
//! Pure data, the same for GPU and CPU path.

mod view;

use std::collections::HashMap;
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
    pub(crate) elements: u64,
    /// That of its group, if it has one.
    threshold: Option<f64>,
    /// Measured and unscaled, never limited.
    pub(crate) excluded: bool,
    /// Name of the group, where the segment is one.
    pub(crate) name: Option<Arc<str>>,
}

/// The segments of a set of tensors.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Segments {
    pub(crate) owners: Vec<Owner>,
    /// Number of segments, that of the whole set not counted.
    pub(crate) count: u32,
    /// One a segment; one a tensor for units; one for rows. Those of excluded groups come before that of
    /// rows, and last where the set shares one norm.
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
        check_groups(tensors, clip)?;
        let parameters = matches!(clip.rule, Rule::Agc { .. });
        let lacks = |t: &&TensorInfo| parameters && !t.has_parameter && !t.excluded();
        if let Some(t) = tensors.iter().find(lacks) {
            return Err(wrong(t, "its parameter, for adaptive gradient clipping", "none"));
        }
        let (owners, limits) = match clip.scope {
            Scope::Global => whole(tensors),
            Scope::Group => groups(tensors),
            Scope::Tensor => each(tensors),
            Scope::Unit(units) => unit_by_unit(tensors, units)?,
            Scope::Row => row_by_row(tensors)?,
        };
        let mut order: Vec<u32> = (0..tensors.len() as u32).collect();
        order.sort_by_key(|&t| (tensors[t as usize].excluded(), owners[t as usize].first()));
        Ok(Segments {
            count: limits.iter().map(|l| l.segments).sum(),
            limited: tensors.iter().filter(|t| !t.excluded()).count() as u32,
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

    /// Under [`Scope::Row`], the segment of the first row and the number of rows.
    pub(crate) fn rows(&self) -> (u32, u32) {
        self.limits.last().map_or((0, 0), |rows| (rows.first, rows.segments))
    }

    /// The thresholds of all limits, as clip and groups say.
    pub(crate) fn thresholds(&self, clip: &Clip) -> Vec<f64> {
        self.limits.iter().map(|l| l.threshold.unwrap_or(clip.threshold)).collect()
    }

    /// The settings of all limits, that of the whole set last.
    pub(crate) fn settings(&self, clip: &Clip, thresholds: &[f64]) -> Vec<Setting> {
        let mut settings: Vec<Setting> = self
            .limits
            .iter()
            .zip(thresholds)
            .map(|(limit, &threshold)| match limit.excluded {
                // Measured and unscaled, whatever the rule.
                true => Setting {
                    policy: POLICY_SKIP,
                    rule: RULE_FREE,
                    total: 0,
                    below: 0,
                    ..setting(clip, f64::INFINITY, limit.elements)
                },
                false => setting(clip, threshold, limit.elements),
            })
            .collect();
        if self.total {
            let plain = Clip { rule: Rule::Norm, adapt: None, ..*clip };
            settings.push(Setting { total: 0, ..setting(&plain, clip.total.unwrap_or(f64::INFINITY), 1) });
        }
        settings
    }
}

impl TensorInfo {
    /// Whether its group is excluded.
    pub(crate) fn excluded(&self) -> bool {
        self.group.as_ref().is_some_and(|g| g.threshold.is_none())
    }
}

impl Limit {
    fn new(first: u32, segments: u32, elements: u64) -> Limit {
        Limit { first, segments, elements, threshold: None, excluded: false, name: None }
    }

    /// One segment, which is the tensor.
    fn of(t: &TensorInfo, first: u32) -> Limit {
        let threshold = t.group.as_ref().and_then(|g| g.threshold);
        Limit { threshold, excluded: t.excluded(), ..Limit::new(first, 1, t.elements) }
    }
}

fn setting(clip: &Clip, threshold: f64, elements: u64) -> Setting {
    // Elements are limited by value and sign, not norms.
    let below = clip.is_never_above() && !matches!(clip.rule, Rule::Value | Rule::Sign);
    let (threshold, lift) = limit_of(clip, threshold, elements, below);
    let eps = |eps: f64| eps.abs() as f32;
    Setting {
        threshold,
        lift,
        unscale: clip.unscale as f32,
        eps: eps(clip.eps),
        floor: if let Rule::Agc { eps: floor } = clip.rule { eps(floor) } else { 0.0 },
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
        below: below.into(),
    }
}

/// The largest norm allowed, and the power of two that it is to be multiplied by: a mean over many
/// elements may allow a norm above `f32::MAX`, which an `f64` holds.
fn limit_of(clip: &Clip, threshold: f64, elements: u64, below: bool) -> (f32, i32) {
    let n = elements.max(1) as f64;
    // -0 passes validation, and compares as a huge integer.
    let limit = match clip.rule {
        Rule::Rms => threshold.abs() * n.sqrt(),
        Rule::Average => threshold.abs() * n,
        _ => threshold.abs(),
    };
    if limit > f64::from(f32::MAX) * 2f64.powi(64) {
        // No norm is that large: elements are fewer than 2^64.
        return (f32::INFINITY, 0);
    }
    // Histories hold no norm above f32::MAX.
    let limit = if clip.adapt.is_some() { limit.min(f32::MAX.into()) } else { limit };
    let lift = if limit > f64::from(f32::MAX) { 64 } else { 0 };
    let (exact, scaled) = (limit == threshold.abs(), limit / 2f64.powi(lift));
    let nearest = scaled as f32;
    if !below {
        return (nearest, lift);
    }
    // Root and product of an f64 are off by less than two units of its last place.
    let least = if exact { scaled } else { scaled * (1.0 - 2.0 * f64::EPSILON) };
    (if f64::from(nearest) > least { nearest.next_down() } else { nearest }, lift)
}

/// That unscaling in place loses nothing, or may.
pub(crate) fn check_in_place(infos: &[TensorInfo], clip: &Clip) -> Result<(), ClipError> {
    match infos.iter().find(|info| info.dtype == DType::F16) {
        Some(info) if clip.unscales() && !clip.lossy_unscale => Err(ClipError::LossyUnscale {
            tensor: info.name.to_string(),
            unscale: clip.unscale,
            scaled: clip.loss_scale.is_some(),
        }),
        _ => Ok(()),
    }
}

fn wrong(tensor: &TensorInfo, required: impl Into<String>, given: impl Into<String>) -> ClipError {
    ClipError::Tensor { tensor: tensor.name.to_string(), required: required.into(), given: given.into() }
}

type Parted = (Vec<Owner>, Vec<Limit>);

/// That groups of one name are alike, and mean something in this scope.
fn check_groups(tensors: &[TensorInfo], clip: &Clip) -> Result<(), ClipError> {
    let quantile = matches!(clip.adapt, Some(crate::Adapt::Quantile { .. }));
    let shared = matches!(clip.scope, Scope::Global | Scope::Row);
    let mut met: HashMap<&str, &Group> = HashMap::new();
    for t in tensors {
        let Some(group) = &t.group else { continue };
        let first = met.entry(&group.name).or_insert(group);
        if first.threshold != group.threshold {
            let name = group.name.to_string();
            return Err(ClipError::Group { name, first: first.threshold, second: group.threshold });
        }
        let Some(given) = group.threshold else { continue };
        if given.is_nan() || given < 0.0 {
            return Err(ClipError::Threshold { given });
        }
        if quantile && !(given as f32 > 0.0 && (given as f32).is_finite()) {
            let (what, required) = ("Adapt::Quantile", "first thresholds of groups above 0 and finite");
            return Err(ClipError::Combination { what, required });
        }
        if shared {
            let required = "no group with a threshold of its own where one norm is shared by tensors of \
                            several groups; Scope::Group gives each group its norm, Group::excluded leaves one out";
            return Err(wrong(t, required, format!("group `{}` with threshold {given}", group.name)));
        }
    }
    Ok(())
}

/// Excluded groups as segments of their own, in the order in which they are met, from segment `first` on.
fn excluded_groups(tensors: &[TensorInfo], first: u32) -> (Vec<Option<Owner>>, Vec<Limit>) {
    let mut limits: Vec<Limit> = Vec::new();
    let mut number: HashMap<&str, usize> = HashMap::new();
    let owners = tensors.iter().map(|t| {
        let group = t.group.as_ref().filter(|g| g.threshold.is_none())?;
        let i = *number.entry(&group.name).or_insert_with(|| {
            let segment = first + limits.len() as u32;
            limits.push(Limit { name: Some(group.name.clone()), elements: 0, ..Limit::of(t, segment) });
            limits.len() - 1
        });
        limits[i].elements = limits[i].elements.saturating_add(t.elements);
        Some(Owner::One(limits[i].first))
    });
    (owners.collect(), limits)
}

/// A global segment exists even without tensors: the norm of nothing is 0.
fn whole(tensors: &[TensorInfo]) -> Parted {
    let limited = tensors.iter().filter(|t| !t.excluded());
    let elements = limited.fold(0u64, |sum, t| sum.saturating_add(t.elements));
    let (owners, excluded) = excluded_groups(tensors, 1);
    let owners = owners.into_iter().map(|o| o.unwrap_or(Owner::One(0))).collect();
    (owners, std::iter::once(Limit::new(0, 1, elements)).chain(excluded).collect())
}

fn each(tensors: &[TensorInfo]) -> Parted {
    let numbered = || tensors.iter().zip(0u32..);
    (numbered().map(|(_, i)| Owner::One(i)).collect(), numbered().map(|(t, i)| Limit::of(t, i)).collect())
}

/// Groups in the order in which they are met.
fn groups(tensors: &[TensorInfo]) -> Parted {
    let mut limits: Vec<Limit> = Vec::new();
    let mut number: HashMap<Option<&str>, usize> = HashMap::new();
    let mut owners = Vec::with_capacity(tensors.len());
    for t in tensors {
        let name = t.group.as_ref().map(|g| &g.name);
        let i = *number.entry(name.map(|n| &**n)).or_insert_with(|| {
            limits.push(Limit { name: name.cloned(), elements: 0, ..Limit::of(t, limits.len() as u32) });
            limits.len() - 1
        });
        limits[i].elements = limits[i].elements.saturating_add(t.elements);
        owners.push(Owner::One(i as u32));
    }
    (owners, limits)
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
        let count = if t.excluded() {
            owners.push(Owner::One(first));
            limits.push(Limit::of(t, first));
            1
        } else {
            let shape = shape_of(t)?;
            let view = UnitView::of(shape, units)
                .map_err(|required| wrong(t, required, format!("shape {shape:?}")))?;
            let count = if t.elements == 0 { 0 } else { view.units as u32 };
            owners.push(Owner::Units { first, view: UnitView { units: count.into(), ..view } });
            limits.push(Limit { segments: count, elements: view.len, ..Limit::of(t, first) });
            count
        };
        first = first.checked_add(count).ok_or_else(|| wrong(t, "fewer than 2^32 units in all", "more"))?;
    }
    Ok((owners, limits))
}

fn row_by_row(tensors: &[TensorInfo]) -> Result<Parted, ClipError> {
    let (excluded, mut limits) = excluded_groups(tensors, 0);
    let first = limits.len() as u32;
    let mut owners = Vec::with_capacity(tensors.len());
    let mut elements = 0;
    let mut rows = None;
    for (t, excluded) in tensors.iter().zip(excluded) {
        if let Some(owner) = excluded {
            owners.push(owner);
            continue;
        }
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
        owners
            .extend(view.map(|view| Owner::Units { first, view: UnitView { units: required, len, ..view } }));
        elements += len;
    }
    limits.push(Limit::new(first, rows.unwrap_or(0) as u32, elements));
    Ok((owners, limits))
}
