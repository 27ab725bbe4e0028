//! Which tensor, or which unit of it, belongs to which segment; and what each is limited to.
//!
//! Pure data, the same for GPU and CPU path.

mod limit;
mod owner;
mod parted;
mod settings;
mod view;

use std::collections::HashMap;

use crate::clip::{Adapt, Clip, Rule, Scope};
use crate::error::ClipError;
use crate::tensor::{DType, Group, TensorInfo};

use parted::wrong;

pub(crate) use limit::Limit;
pub(crate) use owner::Owner;
pub(crate) use view::UnitView;

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
    /// All tensors in one segment, whatever groups they are in: for sums, which leave none out.
    pub(crate) fn in_one(tensors: &[TensorInfo]) -> Result<Segments, ClipError> {
        let plain = |t: &TensorInfo| TensorInfo { group: None, ..t.clone() };
        Segments::new(&tensors.iter().map(plain).collect::<Vec<_>>(), &Clip::measure())
    }

    pub(crate) fn new(tensors: &[TensorInfo], clip: &Clip) -> Result<Segments, ClipError> {
        clip.validate()?;
        check_groups(tensors, clip)?;
        let parameters = matches!(clip.rule, Rule::Agc { .. });
        let lacks = |t: &&TensorInfo| parameters && !t.has_parameter && !t.excluded();
        if let Some(t) = tensors.iter().find(lacks) {
            return Err(wrong(t, "its parameter, for adaptive gradient clipping", "none"));
        }
        let (owners, limits) = parted::part(tensors, clip.scope)?;
        let mut order: Vec<u32> = (0..tensors.len() as u32).collect();
        order.sort_by_key(|&t| (tensors[t as usize].excluded(), owners[t as usize].first()));
        Ok(Segments {
            count: limits.iter().map(|l| l.segments).sum(),
            limited: tensors.iter().filter(|t| !t.excluded()).count() as u32,
            total: clip.limits_total() || (clip.skip.is_some() && clip.scope != Scope::Global),
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

    /// The segments of a tensor, or of a parameter, which follow them.
    pub(crate) fn owner_of(&self, number: usize) -> Owner {
        match number.checked_sub(self.owners.len()) {
            None => self.owners[number],
            Some(i) => self.owners[i].shifted(self.decided()),
        }
    }

    /// Sums of tensors and of their parameters.
    pub(crate) fn sums(&self) -> usize {
        self.owners.len() * if self.parameters { 2 } else { 1 }
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

/// That groups of one name are alike, and mean something in this scope.
fn check_groups(tensors: &[TensorInfo], clip: &Clip) -> Result<(), ClipError> {
    let quantile = clip.adapt.is_some_and(Adapt::counts);
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
