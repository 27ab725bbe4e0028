//! The constants that optimisers share: their ranges, and as records have them.

use crate::error::OptimizerError;
use crate::layout::Hyper;

pub(super) fn flag(set: bool, bit: u32) -> u32 {
    if set { bit } else { 0 }
}

pub(super) fn betas_below_1((first, second): (f64, f64)) -> Result<(), OptimizerError> {
    for (what, given) in [("β₁", first), ("β₂", second)] {
        // What rounds to 1 would make the correction infinite.
        if !(0.0..1.0).contains(&given) || (1.0 - given) as f32 == 0.0 || given as f32 == 1.0 {
            return Err(OptimizerError::Constant { what, required: "from 0 to below 1", given });
        }
    }
    Ok(())
}

/// The decays of two moments, and what of a gradient goes into each.
pub(super) fn of_betas((first, second): (f64, f64)) -> Hyper {
    Hyper {
        decay: first as f32,
        share: (1.0 - first) as f32,
        second_decay: second as f32,
        second_share: (1.0 - second) as f32,
        ..bytemuck::Zeroable::zeroed()
    }
}

/// Whether a constant is 0 or more and an `f32` holds it.
pub(crate) fn at_least_0(what: &'static str, given: f64) -> Result<(), OptimizerError> {
    if given >= 0.0 && (given as f32).is_finite() {
        return Ok(());
    }
    Err(OptimizerError::Constant { what, required: "0 or more and finite", given })
}

/// Whether a constant is above 0 and an `f32` holds it.
pub(super) fn above_0(what: &'static str, given: f64) -> Result<(), OptimizerError> {
    if given as f32 > 0.0 && (given as f32).is_finite() {
        return Ok(());
    }
    Err(OptimizerError::Constant { what, required: "above 0 and finite", given })
}

/// Factors of the learning rate, one a tensor.
pub(crate) fn check_lr_scales(scales: &[f64], tensors: usize) -> Result<(), OptimizerError> {
    if scales.len() != tensors {
        let (what, required) = ("number of learning rate factors", "one a tensor");
        return Err(OptimizerError::Constant { what, required, given: scales.len() as f64 });
    }
    scales.iter().try_for_each(|&scale| at_least_0("learning rate factor", scale))
}

/// A builder's methods, each of which sets the field of its name.
macro_rules! setters {
    ($optimizer:ident: $($(#[$about:meta])+ $field:ident: $kind:ty,)+) => {
        impl $optimizer {
            $($(#[$about])+
            #[must_use]
            pub fn $field(self, $field: $kind) -> $optimizer {
                $optimizer { $field, ..self }
            })+
        }
    };
}

pub(super) use setters;
