//! Tensors that a clip fits, checked.

use crate::clip::Clip;
use crate::error::ClipError;
use crate::segments::{Segments, check_in_place};
use crate::tensor::TensorInfo;

use super::block::Values;
use super::double;
use super::grads::GradMut;

/// Tensors that a clip fits.
#[derive(Debug)]
pub(super) struct Set {
    pub(super) infos: Vec<TensorInfo>,
    pub(super) parts: Segments,
    /// Whether all of it is measured as `f64`.
    pub(super) double: bool,
}

impl Set {
    /// With the parameters that the clip needs.
    pub(super) fn of<'a>(grads: &[GradMut<'a>], clip: &Clip) -> Result<(Set, Vec<Values<'a>>), ClipError> {
        let given: Vec<_> = grads.iter().map(GradMut::values).collect();
        Set::new(grads.iter().map(GradMut::info).collect(), &given, clip)
    }

    /// Checks everything that can be wrong but the history.
    pub(super) fn new<'a>(
        infos: Vec<TensorInfo>,
        given: &[Option<Values<'a>>],
        clip: &Clip,
    ) -> Result<(Set, Vec<Values<'a>>), ClipError> {
        let parts = Segments::new(&infos, clip)?;
        let parameters = parameters(given, &infos, &parts)?;
        check_in_place(&infos, clip)?;
        let double = double::comes_here(&infos, &parameters, clip);
        if double {
            double::check(clip)?;
        }
        Ok((Set { infos, parts, double }, parameters))
    }
}

/// The parameters that the clip needs, checked. Those of excluded tensors are not read.
pub(super) fn parameters<'a>(
    given: &[Option<Values<'a>>],
    infos: &[TensorInfo],
    parts: &Segments,
) -> Result<Vec<Values<'a>>, ClipError> {
    if !parts.parameters {
        return Ok(Vec::new());
    }
    let wrong = |info: &TensorInfo, given: usize| ClipError::Tensor {
        tensor: info.name.to_string(),
        required: format!("a parameter of {} elements", info.elements),
        given: given.to_string(),
    };
    given
        .iter()
        .zip(infos)
        .map(|(values, info)| match values {
            _ if info.excluded() => Ok(Values::F32(&[])),
            Some(values) if values.len() as u64 == info.elements => Ok(*values),
            other => Err(wrong(info, other.map_or(0, |v| v.len()))),
        })
        .collect()
}
