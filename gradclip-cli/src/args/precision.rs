//! Numbers of options as the arithmetic takes them: singles, or doubles where a gradient is F64.

use gradclip::cpu::Norm;
use gradclip::{Clip, NormType};

use crate::failure::Failure;
use crate::input::{Parameters, Set};

/// A number of [`Clip`].
pub(crate) type Scalar = f64;

/// What the numbers of a clip are rounded to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Precision {
    Single,
    Double,
}

impl Precision {
    /// That of the widest gradients and parameters: one of doubles makes all arithmetic that of doubles.
    pub(crate) fn of(set: &Set, parameters: Option<&Parameters>) -> Precision {
        match set.double().is_some() || parameters.is_some_and(Parameters::double) {
            true => Precision::Double,
            false => Precision::Single,
        }
    }

    /// The value of an option. A finite number must stay finite: 1e39 is not infinity, which only measures.
    pub(crate) fn scalar(self, option: &str, value: f64) -> Result<Scalar, Failure> {
        let rounded = self.rounded(value);
        match rounded.is_finite() == value.is_finite() {
            true => Ok(rounded),
            false => {
                let largest = format!("expected at most {:e}, the largest f32", f32::MAX);
                Err(Failure::Usage(format!("{option} {value:e}: {largest}, as nothing is F64")))
            }
        }
    }

    /// The factor of `--unscale S`.
    pub(crate) fn inverse(self, scale: f64) -> Result<Scalar, Failure> {
        let factor = self.rounded(1.0 / scale);
        match Clip::measure().unscale(factor).validate() {
            Ok(()) => Ok(factor),
            Err(_) => Err(Failure::Usage(format!(
                "--unscale {scale:e}: expected a scale S whose inverse 1/S is above 0 and finite as f32"
            ))),
        }
    }

    /// A norm of pieces of that precision.
    pub(crate) fn norm(self, norm: NormType) -> Norm {
        match self {
            Precision::Single => Norm::new(norm),
            Precision::Double => Norm::f64(norm),
        }
    }

    /// A number by its shortest digits that give it back.
    pub(crate) fn shortest(self, value: Scalar) -> serde_json::Value {
        // Going through f64 directly would print 0.1 as 0.10000000149011612.
        let digits = match self {
            Precision::Single => (value as f32).to_string(),
            Precision::Double => value.to_string(),
        };
        digits.parse::<f64>().map_or(serde_json::Value::Null, Into::into)
    }

    fn rounded(self, value: f64) -> Scalar {
        match self {
            Precision::Single => f64::from(value as f32),
            Precision::Double => value,
        }
    }
}
