//! Units by what a parameter is: a layer of Burn's has its outputs first or last, a model has both.

use gradclip::{Clip, Scope, Units};

use crate::error::Error;
use crate::passes::Place;

/// A parameter of a model, as rules by its kind see it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Parameter<'a> {
    /// Its path in the model, such as `layers.0.weight`.
    pub path: &'a str,
    /// Name of the struct that it is a field of, such as `Linear`.
    pub module: &'a str,
    /// Length of each axis.
    pub shape: &'a [u64],
}

/// Says which axis of a parameter counts outputs.
pub(crate) type OutputAxes = Box<dyn Fn(&Parameter<'_>) -> Option<usize> + Send + Sync>;

/// The axis that counts outputs in the layers of Burn 0.22: the last of `Linear`, the second of transposed convolutions, the
/// first of other convolutions and of `Embedding`, which has a row a token. `None` for what is none of these: the units of
/// the clip hold there. Recurrent layers and attention are made of `Linear`s.
///
/// ```
/// # use gradclip_burn::output_axis;
/// assert_eq!(output_axis("Linear"), Some(1));
/// assert_eq!(output_axis("Conv2d"), Some(0));
/// assert_eq!(output_axis("MyLayer"), None);
/// ```
pub fn output_axis(module: &str) -> Option<usize> {
    match module {
        "Linear" | "ConvTranspose1d" | "ConvTranspose2d" | "ConvTranspose3d" => Some(1),
        "Conv1d" | "Conv2d" | "Conv3d" | "DeformConv2d" | "Embedding" => Some(0),
        _ => None,
    }
}

/// Axes that norms of units are over, in the shapes of [`shape_of`].
const SUMMED: [usize; 2] = [0, 2];

/// The clip for gradients in the shapes of [`shape_of`].
pub(crate) fn clip_of(clip: Clip) -> Clip {
    match clip.scope {
        Scope::Unit(_) => clip.scope(Scope::Unit(Units::over(&SUMMED))),
        _ => clip,
    }
}

/// The gradient's shape with the axes before the outputs as one, the outputs, and the axes after them as one: so all
/// parameters have units over the same axes. `None` where the clip knows no units.
///
/// # Errors
///
/// [`Error::Units`] where no axis is known.
pub(crate) fn shape_of(
    place: &Place,
    clip: &Clip,
    output_axes: &OutputAxes,
) -> Result<Option<[u64; 3]>, Error> {
    let Scope::Unit(otherwise) = clip.scope else { return Ok(None) };
    let shape = &place.shape[..];
    let whole = Ok(Some([shape.iter().product(), 1, 1]));
    // One unit, whatever the kind: biases and scales.
    if shape.len() <= 1 {
        return whole;
    }
    let refused =
        |given: String| Error::Units { parameter: place.path.clone(), module: place.module.clone(), given };
    let cut = |axis: usize, end: usize| {
        let product = |axes: &[u64]| axes.iter().product::<u64>();
        [product(&shape[..axis]), product(&shape[axis..end]), product(&shape[end..])]
    };
    match (output_axes(&place.parameter_of()), otherwise) {
        (Some(axis), _) if axis < shape.len() => Ok(Some(cut(axis, axis + 1))),
        (Some(axis), _) => Err(refused(format!("axis {axis} of shape {shape:?}"))),
        (None, Units::OutputFirst) => Ok(Some(cut(0, 1))),
        (None, Units::OutputLast) if shape.iter().filter(|&&n| n > 1).count() <= 1 => whole,
        (None, Units::OutputLast) => match shape.len() {
            rank @ 2..=3 => Ok(Some(cut(1, rank))),
            rank @ 4..=5 => Ok(Some(cut(rank - 1, rank))),
            rank => Err(refused(format!("{otherwise:?} of rank {rank}"))),
        },
        (None, _) => Err(refused(format!("{otherwise:?}"))),
    }
}
