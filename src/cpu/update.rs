//! gradient, outcome -> parameter, moments: the twin of the `shaders/update_*.wgsl`.

mod arithmetic;
mod rates;
mod rules;

use crate::layout::{KEEP, MULTIPLY, Outcome, SKIPPED};

use super::apply;
use super::block::{Values, not_here, with_elements};
use super::element::Element;
use super::lanes::{ByLanes, Lanes, by_lanes};
use super::parameter::{Chance, ParameterMut, split};

pub(super) use arithmetic::{decayed, penalised, quotient, within};
pub(super) use rates::Rates;
use rules::{Operands, update};

/// Elements whose clipped gradients are kept at once: they stay in the first cache.
const BLOCK: usize = 1024;

/// What a gradient does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Action {
    /// It moves a parameter.
    Update(Rates),
    /// It is added to an accumulator, or begins the sum.
    Add { begins: bool },
}

/// Neighbouring elements of a parameter and its moments, or of an accumulator.
#[derive(Debug, Default)]
pub(super) struct Target<'a> {
    pub(super) parameter: ParameterMut<'a>,
    /// None to three of the parameter's length.
    pub(super) moments: [&'a mut [f32]; 3],
    /// Number of the first element in its tensor.
    pub(super) first: u64,
}

impl<'a> Target<'a> {
    /// A row of a table, of which those before and this one are taken off; row `k` of the gradient.
    pub(super) fn row(&mut self, row: usize, width: usize, k: usize) -> Target<'a> {
        let taken = self.first as usize;
        self.split(row * width - taken);
        let own = self.split(width);
        // Units are told by places in the gradient.
        Target { first: (k * width) as u64, ..own }
    }

    /// Takes the first `len` elements off, or all where there are fewer.
    pub(super) fn split(&mut self, len: usize) -> Target<'a> {
        let first = self.first;
        self.first += len as u64;
        let moments = self.moments.each_mut().map(|moment| split(moment, len));
        Target { parameter: self.parameter.split(len), moments, first }
    }
}

impl Values<'_> {
    /// Moves a parameter or adds to an accumulator.
    pub(super) fn act(&self, outcome: &Outcome, action: &Action, target: Target<'_>) {
        with_elements!(Values, self, e => act(e, outcome, action, target), _e => not_here());
    }
}

/// Lets a gradient, which is only read, move a parameter or add to an accumulator.
fn act<T: Element>(gradient: &[T], outcome: &Outcome, action: &Action, mut target: Target<'_>) {
    let (mut block, mut room) = ([0.0f32; BLOCK], [0.0f32; BLOCK]);
    for gradient in gradient.chunks(BLOCK) {
        let Target { parameter, moments, first } = target.split(gradient.len());
        let (gradient, scale) = clipped(gradient, outcome, &mut block[..gradient.len()]);
        match action {
            Action::Add { begins } => {
                let (skipped, begins) = (outcome.flags & SKIPPED != 0, *begins);
                let sum =
                    |accumulator: &mut [f32]| by_lanes(Add { gradient, scale, skipped, begins, accumulator });
                parameter.change(first, Chance::default(), &mut room, sum);
            }
            Action::Update(rates) => {
                let scale = scale * rates.sign();
                let update =
                    |parameter: &mut [f32]| update(Operands { gradient, scale, parameter, moments }, rates);
                parameter.change(first, rates.chance, &mut room, update);
            }
        }
    }
}

/// The clipped gradient as `f32` and a factor that is still to be multiplied: where the outcome is one
/// factor, elements of `f32` are used where they lie.
pub(super) fn clipped<'a, T: Element>(
    gradient: &'a [T],
    outcome: &Outcome,
    block: &'a mut [f32],
) -> (&'a [f32], f32) {
    let scale = match outcome.action {
        KEEP => Some(1.0),
        // No product of a larger factor may become infinite.
        MULTIPLY if outcome.rescale == 1.0 && outcome.scale <= 1.0 => Some(outcome.scale),
        _ => None,
    };
    if let (Some(scale), Some(bits)) = (scale, T::as_f32_bits(gradient)) {
        return (bytemuck::cast_slice(bits), scale);
    }
    T::widen(gradient, block);
    if scale.is_none() {
        apply::apply(block, outcome);
    }
    (block, scale.unwrap_or(1.0))
}

/// The twin of `shaders/accumulate.wgsl`: a segment that is skipped adds nothing.
struct Add<'a> {
    gradient: &'a [f32],
    /// Factor of the gradient.
    scale: f32,
    skipped: bool,
    begins: bool,
    accumulator: &'a mut [f32],
}

impl ByLanes for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Add { gradient, scale, skipped, begins, accumulator } = self;
        let pairs = accumulator.iter_mut().zip(gradient);
        match (begins, skipped) {
            (true, true) => accumulator.fill(0.0),
            (false, true) => {}
            (true, false) => pairs.for_each(|(a, g)| *a = g * scale),
            (false, false) => pairs.for_each(|(a, g)| {
                let g = g * scale;
                *a = within(*a + g, a.is_finite() & g.is_finite());
            }),
        }
    }
}
