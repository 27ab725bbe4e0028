//! Updates and parameters -> the factor of each tensor's update: the twin of `shaders/measure_*.wgsl` and `ratio.wgsl`.

use crate::clip::Summation;
use crate::combine;
use crate::layout::{
    CHUNK, Hyper, LARS, LIMITS_RATE, LIMITS_RMS, NORMS_APART, Outcome, Partial, Sum, TRUST_RATIO,
};
use crate::norm::norm_of;
use crate::real::{F32_MIN_EXPONENT, NO_MIN_EXPONENT, Real, Rounded};
use crate::segments::Owner;

use super::block::{Values, not_here, with_elements};
use super::change::outcomes_of;
use super::element::Element;
use super::lanes::{ByLanes, Lanes, by_lanes};
use super::parameter::ParameterMut;
use super::reduce::Scratch;
use super::threads;
use super::update::{Rates, clipped, decayed, penalised, quotient, within};

/// Elements whose clipped gradients are kept at once.
const BLOCK: usize = 1024;

/// Tensors before anything of them moves, one at each place.
#[derive(Clone, Copy)]
pub(super) struct Unmoved<'a> {
    pub(super) gradients: &'a [Values<'a>],
    pub(super) parameters: &'a [ParameterMut<'a>],
    pub(super) moments: &'a [Vec<Vec<f32>>],
    pub(super) owners: &'a [Owner],
    pub(super) outcomes: &'a [Outcome],
}

/// A chunk, and what it measures: its updates, and its parameters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    tensor: usize,
    chunk: usize,
    partials: [Partial; 2],
}

/// The factor of each tensor's update, 1 of those that have no constants here. `measured` is room for their chunks.
pub(super) fn ratios(
    all: Unmoved<'_>,
    rates: &(impl Fn(usize) -> Option<Rates> + Sync),
    measured: &mut Vec<Measured>,
    to: &mut Vec<f32>,
) {
    let limited = |tensor: &usize| rates(*tensor).is_some();
    let tensors = 0..all.gradients.len();
    let chunks = |tensor: usize| {
        let chunks = all.gradients[tensor].len().div_ceil(CHUNK as usize);
        (0..chunks).map(move |chunk| Measured { tensor, chunk, partials: [Partial::default(); 2] })
    };
    measured.clear();
    measured.extend(tensors.clone().filter(limited).flat_map(chunks));
    let elements = all.gradients.iter().map(|gradient| gradient.len() as u64).sum();
    threads::share(measured, elements, &|_, own| {
        for Measured { tensor, chunk, partials } in own {
            if let Some(rates) = rates(*tensor) {
                *partials = all.of(*tensor).measure(*chunk * CHUNK as usize, &rates);
            }
        }
    });
    to.clear();
    to.resize(tensors.len(), 1.0);
    for own in measured.chunk_by(|a, b| a.tensor == b.tensor) {
        let tensor = own[0].tensor;
        if let Some(rates) = rates(tensor) {
            to[tensor] = ratio_of(own, all.gradients[tensor].len() as u64, &rates);
        }
    }
}

/// From all chunks of a tensor.
fn ratio_of(measured: &[Measured], elements: u64, rates: &Rates) -> f32 {
    let [update, parameter] = [0, 1].map(|which| {
        let items = measured.iter().map(|of| combine::item(&of.partials[which], 0, Summation::Two));
        combine::combine(items, Summation::Two)
    });
    match rates.hyper.flags & TRUST_RATIO {
        0 => within_limit(&update, elements, &rates.hyper),
        _ => trust_ratio([&update, &parameter], rates.weight_decay, &rates.hyper),
    }
}

impl<'a> Unmoved<'a> {
    fn of(self, tensor: usize) -> One<'a> {
        One {
            gradient: self.gradients[tensor],
            parameter: &self.parameters[tensor],
            moments: &self.moments[tensor],
            owner: self.owners[tensor],
            outcomes: self.outcomes,
        }
    }
}

/// One of them.
struct One<'a> {
    gradient: Values<'a>,
    parameter: &'a ParameterMut<'a>,
    moments: &'a [Vec<f32>],
    owner: Owner,
    outcomes: &'a [Outcome],
}

impl One<'_> {
    /// The squares of the updates of a chunk, and of its parameters.
    fn measure(&self, at: usize, rates: &Rates) -> [Partial; 2] {
        match self.gradient.len() - at {
            // Sets of many small tensors have no whole chunks to clear.
            len if len <= BLOCK => self.measure_in::<BLOCK>(at, len, rates),
            len => self.measure_in::<{ CHUNK as usize }>(at, len.min(CHUNK as usize), rates),
        }
    }

    fn measure_in<const ROOM: usize>(&self, at: usize, len: usize, rates: &Rates) -> [Partial; 2] {
        let (mut parameters, mut updates) = ([0.0; ROOM], [0.0; ROOM]);
        let (parameters, updates) = (&mut parameters[..len], &mut updates[..len]);
        self.parameter.read(at, parameters);
        let outcomes = outcomes_of(self.owner, self.outcomes);
        match self.owner {
            Owner::One(_) => self.update(at, &outcomes[0], parameters, updates, rates),
            Owner::Units { view, .. } => {
                for (run, unit) in view.runs(at as u64, len) {
                    let to = &mut updates[run.clone()];
                    self.update(at + run.start, &outcomes[unit], &parameters[run], to, rates);
                }
            }
        }
        let sum = |of: &[f32]| Values::F32(of).reduce(Values::F32(&[]), Summation::Two, &mut Scratch::new());
        let trusts = rates.hyper.flags & TRUST_RATIO != 0;
        [sum(updates), if trusts { sum(parameters) } else { Partial::default() }]
    }

    /// What elements from `at` on would move by, without learning rate.
    fn update(&self, at: usize, outcome: &Outcome, parameters: &[f32], to: &mut [f32], rates: &Rates) {
        let gradient = self.gradient.range(at, to.len());
        with_elements!(
            Values,
            gradient,
            e => self.update_by(at, e, outcome, parameters, to, rates),
            _e => not_here()
        );
    }

    fn update_by<T: Element>(
        &self,
        mut at: usize,
        gradient: &[T],
        outcome: &Outcome,
        parameters: &[f32],
        to: &mut [f32],
        rates: &Rates,
    ) {
        let mut block = [0.0; BLOCK];
        for ((gradient, p), to) in
            gradient.chunks(BLOCK).zip(parameters.chunks(BLOCK)).zip(to.chunks_mut(BLOCK))
        {
            let len = gradient.len();
            let (g, scale) = clipped(gradient, outcome, &mut block[..len]);
            let scale = scale * rates.sign();
            let [m, v] = match self.moments {
                [m, v] => [m, v].map(|moment| &moment[at..at + len]),
                _ => [&[][..]; 2],
            };
            by_lanes(Updates { gradient: g, scale, parameter: p, moments: [m, v], to, rates });
            at += len;
        }
    }
}

/// What neighbouring elements would move by.
struct Updates<'a> {
    gradient: &'a [f32],
    /// Factor of the gradient.
    scale: f32,
    parameter: &'a [f32],
    /// None of LARS.
    moments: [&'a [f32]; 2],
    to: &'a mut [f32],
    rates: &'a Rates,
}

impl ByLanes for Updates<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        match self.rates.hyper.flags & (LARS | LIMITS_RATE) {
            LARS => self.of_lars(),
            0 => self.of_adam::<false>(),
            _ => self.of_adam::<true>(),
        }
    }
}

impl Updates<'_> {
    #[inline(always)]
    fn of_lars(self) {
        let Updates { gradient, scale, parameter, to, rates, .. } = self;
        let penalty = if rates.hyper.flags & NORMS_APART != 0 { 0.0 } else { rates.weight_decay };
        for ((to, &g), &p) in to.iter_mut().zip(gradient).zip(parameter) {
            *to = penalised(g * scale, p, penalty, g.is_finite() & p.is_finite());
        }
    }

    /// With `RATE` the gradient over the root of its second moment, which limits a learning rate.
    #[inline(always)]
    fn of_adam<const RATE: bool>(self) {
        let Updates { gradient, scale, parameter, moments: [m, v], to, rates } = self;
        let Hyper { flags, eps: least, .. } = rates.hyper;
        let (eps, penalty) = (rates.eps(), rates.penalty());
        let decay = if flags & LIMITS_RMS != 0 { 0.0 } else { rates.decay() };
        for ((((to, &g), &p), &m), &v) in to.iter_mut().zip(gradient).zip(parameter).zip(m).zip(v) {
            let finite = g.is_finite() & p.is_finite();
            let g = penalised(g * scale, p, penalty, finite);
            let [m, v] = rates.moments([m, v], g, finite);
            let root = rates.root(v);
            *to = if RATE {
                let size = within(root, finite).max(least);
                quotient(g, size, g == 0.0 && size == 0.0, finite)
            } else {
                let size = within(root + eps, finite);
                let update = quotient(rates.corrected(m, finite), size, m == 0.0 && size == 0.0, finite);
                decayed(update, p, decay, finite)
            };
        }
    }
}

/// The root of the squares, at most 24 bits whatever their size.
fn length_of(sum: &Sum) -> Rounded {
    norm_of(sum, Summation::Two).round(NO_MIN_EXPONENT)
}

fn product(a: f32, b: Rounded) -> Rounded {
    Real::from_f32(a).multiply(b.to_real()).round(NO_MIN_EXPONENT)
}

/// 1 at most: by how much the root of the mean square is over its limit.
fn within_limit(update: &Sum, elements: u64, hyper: &Hyper) -> f32 {
    if update.non_finite > 0 {
        return if update.nan > 0 { f32::NAN } else { 0.0 };
    }
    let elements = elements.min(u32::MAX.into());
    let most = product(hyper.limit, Real::square_root(elements.into(), 0).round(NO_MIN_EXPONENT));
    let length = length_of(update);
    match length.exceeds(most) {
        false => 1.0,
        true => most.quotient(length).round(F32_MIN_EXPONENT).to_f32(),
    }
}

fn trust_ratio([update, parameter]: [&Sum; 2], weight_decay: f32, hyper: &Hyper) -> f32 {
    match (update.non_finite > 0, parameter.non_finite > 0) {
        _ if update.nan > 0 || parameter.nan > 0 => return f32::NAN,
        (true, true) => return f32::NAN,
        (true, false) => return 0.0,
        (false, true) => return hyper.limit_most,
        (false, false) => {}
    }
    let (own, size) = (length_of(update), length_of(parameter));
    if own.mantissa == 0 || size.mantissa == 0 {
        return 1.0;
    }
    let sum = |a: Rounded, b: Rounded| a.add(b).round(NO_MIN_EXPONENT);
    let apart = hyper.flags & NORMS_APART != 0;
    let divisor = if apart { sum(own, product(weight_decay, size)) } else { own };
    let divisor = sum(divisor, Real::from_f32(hyper.limit_eps).round(NO_MIN_EXPONENT));
    let ratio = product(hyper.limit, size).quotient(divisor).round(F32_MIN_EXPONENT).to_f32();
    ratio.min(f32::MAX).min(hyper.limit_most)
}
