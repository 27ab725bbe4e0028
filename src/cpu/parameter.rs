//! Parameters that a step moves: the twin of `shaders/shared/parameter_*.wgsl`.

use half::{bf16, f16};

use crate::tensor::{DType, Precision};

use super::block::Values;
use super::element::Element;
use super::lanes::{ByLanes, INFINITY_BITS, Lanes, by_lanes};
use super::threefry::threefry;

/// A parameter that a step moves, or an accumulator.
///
/// Of parameters of 16 bits with a master the master moves, and the parameter is written in the same pass, rounded once to
/// nearest-even (Micikevicius et al. 2018, arXiv 1710.03740). A master of 0 begins as its parameter, so that new ones need no copy;
/// other masters are taken as they are.
#[derive(Debug)]
#[non_exhaustive]
pub enum ParameterMut<'a> {
    /// `f32`.
    F32(&'a mut [f32]),
    /// An `f32` master, and the `f16` parameter of as many elements.
    F16(&'a mut [f32], &'a mut [f16]),
    /// An `f32` master, and the `bf16` parameter of as many elements.
    Bf16(&'a mut [f32], &'a mut [bf16]),
    /// `bf16` without a master, rounded by chance: see
    /// [`StepMut::stochastic_rounding`](super::StepMut::stochastic_rounding).
    Stochastic(&'a mut [bf16]),
}

impl Default for ParameterMut<'_> {
    fn default() -> Self {
        ParameterMut::F32(&mut [])
    }
}

impl<'a> From<&'a mut [f32]> for ParameterMut<'a> {
    fn from(parameter: &'a mut [f32]) -> Self {
        ParameterMut::F32(parameter)
    }
}

impl<'a, const N: usize> From<&'a mut [f32; N]> for ParameterMut<'a> {
    fn from(parameter: &'a mut [f32; N]) -> Self {
        ParameterMut::F32(parameter)
    }
}

impl<'a> From<&'a mut Vec<f32>> for ParameterMut<'a> {
    fn from(parameter: &'a mut Vec<f32>) -> Self {
        ParameterMut::F32(parameter)
    }
}

impl<'a> From<(&'a mut [f32], &'a mut [f16])> for ParameterMut<'a> {
    fn from((master, parameter): (&'a mut [f32], &'a mut [f16])) -> Self {
        ParameterMut::F16(master, parameter)
    }
}

impl<'a> From<(&'a mut [f32], &'a mut [bf16])> for ParameterMut<'a> {
    fn from((master, parameter): (&'a mut [f32], &'a mut [bf16])) -> Self {
        ParameterMut::Bf16(master, parameter)
    }
}

impl<'a> From<&'a mut [bf16]> for ParameterMut<'a> {
    fn from(parameter: &'a mut [bf16]) -> Self {
        ParameterMut::Stochastic(parameter)
    }
}

/// What the random bits of a run of elements follow from.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Chance {
    pub(super) seed: u64,
    /// Number of the step.
    pub(super) step: u32,
}

impl<'a> ParameterMut<'a> {
    /// Elements of the master and of the parameter.
    pub(super) fn lens(&self) -> [usize; 2] {
        match self {
            ParameterMut::F32(all) => [all.len(); 2],
            ParameterMut::F16(master, halves) => [master.len(), halves.len()],
            ParameterMut::Bf16(master, halves) => [master.len(), halves.len()],
            ParameterMut::Stochastic(halves) => [halves.len(); 2],
        }
    }

    pub(super) fn len(&self) -> usize {
        self.lens()[1]
    }

    pub(super) fn precision(&self) -> Precision {
        match self {
            ParameterMut::F32(_) => Precision::Single,
            ParameterMut::F16(..) => Precision::Mixed(DType::F16),
            ParameterMut::Bf16(..) => Precision::Mixed(DType::Bf16),
            ParameterMut::Stochastic(_) => Precision::Stochastic,
        }
    }

    /// The parameter's elements.
    pub(super) fn values(&self) -> Values<'_> {
        match self {
            ParameterMut::F32(all) => Values::F32(all),
            ParameterMut::F16(_, halves) => Values::F16(halves),
            ParameterMut::Bf16(_, halves) | ParameterMut::Stochastic(halves) => Values::Bf16(halves),
        }
    }

    /// The same, for a while.
    pub(super) fn reborrowed(&mut self) -> ParameterMut<'_> {
        match self {
            ParameterMut::F32(all) => ParameterMut::F32(all),
            ParameterMut::F16(master, halves) => ParameterMut::F16(master, halves),
            ParameterMut::Bf16(master, halves) => ParameterMut::Bf16(master, halves),
            ParameterMut::Stochastic(halves) => ParameterMut::Stochastic(halves),
        }
    }

    /// What a step moves, as `f32`: elements from `at` on.
    pub(super) fn read(&self, at: usize, to: &mut [f32]) {
        let own = at..at + to.len();
        match self {
            ParameterMut::F32(all) => to.copy_from_slice(&all[own]),
            ParameterMut::F16(master, halves) => read_mixed(&master[own.clone()], &halves[own], to),
            ParameterMut::Bf16(master, halves) => read_mixed(&master[own.clone()], &halves[own], to),
            ParameterMut::Stochastic(halves) => bf16::widen(&halves[own], to),
        }
    }

    /// Takes the first `len` elements off, or all where there are fewer.
    pub(super) fn split(&mut self, len: usize) -> ParameterMut<'a> {
        match self {
            ParameterMut::F32(all) => ParameterMut::F32(split(all, len)),
            ParameterMut::F16(master, halves) => ParameterMut::F16(split(master, len), split(halves, len)),
            ParameterMut::Bf16(master, halves) => ParameterMut::Bf16(split(master, len), split(halves, len)),
            ParameterMut::Stochastic(halves) => ParameterMut::Stochastic(split(halves, len)),
        }
    }

    /// Lets `change` move the elements as `f32`, of which the first has this number in its tensor. `room` is for as many.
    pub(super) fn change(
        self,
        first: u64,
        chance: Chance,
        room: &mut [f32],
        change: impl FnOnce(&mut [f32]),
    ) {
        match self {
            ParameterMut::F32(all) => change(all),
            ParameterMut::F16(master, halves) => mixed(master, halves, change),
            ParameterMut::Bf16(master, halves) => mixed(master, halves, change),
            ParameterMut::Stochastic(halves) => {
                let room = &mut room[..halves.len()];
                bf16::widen(halves, room);
                change(room);
                by_lanes(ByChance { values: room, to: halves, first, chance });
            }
        }
    }
}

/// Takes the first `len` elements off, or all where there are fewer.
pub(super) fn split<'a, T>(slice: &mut &'a mut [T], len: usize) -> &'a mut [T] {
    let all = std::mem::take(slice);
    let len = len.min(all.len());
    let (first, rest) = all.split_at_mut(len);
    *slice = rest;
    first
}

fn mixed<T: Element>(master: &mut [f32], halves: &mut [T], change: impl FnOnce(&mut [f32])) {
    // A master that nothing was written to is its parameter. One of 0 that was has a parameter of 0, so that it stays what it is.
    // All are looked at, without a branch each.
    if master.iter().fold(false, |found, m| found | (m.to_bits() == 0)) {
        let new = master.iter_mut().zip(&*halves).filter(|(m, _)| m.to_bits() == 0);
        new.for_each(|(master, half)| *master = f32::from_bits(half.f32_bits()));
    }
    change(master);
    T::narrow(master, halves);
}

/// The parameter instead of a master that nothing was written to.
fn read_mixed<T: Element>(master: &[f32], halves: &[T], to: &mut [f32]) {
    for ((to, master), half) in to.iter_mut().zip(master).zip(halves) {
        *to = if master.to_bits() == 0 { f32::from_bits(half.f32_bits()) } else { *master };
    }
}

/// Values rounded up with the probability that keeps their mean.
struct ByChance<'a> {
    values: &'a [f32],
    to: &'a mut [bf16],
    /// Number of the first element in its tensor.
    first: u64,
    chance: Chance,
}

/// Counters whose random bits are computed together, of which each has those of four elements.
const COUNTERS: usize = 32;

impl ByLanes for ByChance<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let ByChance { mut values, mut to, mut first, chance } = self;
        while !values.is_empty() {
            let random = random_of(first, chance);
            let (begun, len) =
                ((first % 4) as usize, (4 * COUNTERS - (first % 4) as usize).min(values.len()));
            let (own, rest) = values.split_at(len);
            let pairs = split(&mut to, len).iter_mut().zip(own).zip(&random[begun..]);
            pairs.for_each(|((to, value), random)| *to = rounded_by_chance(*value, *random));
            (values, first) = (rest, first + len as u64);
        }
    }
}

/// 16 bits for each element from the multiple of four on that is not above `e`.
#[inline(always)]
fn random_of(e: u64, Chance { seed, step }: Chance) -> [u32; 4 * COUNTERS] {
    // As a device counts elements: in 32 bits.
    let counters = std::array::from_fn(|i| (((e >> 2) as u32).wrapping_add(i as u32)) & (u32::MAX >> 2));
    let [x, y] = threefry([counters, [step; COUNTERS]], [seed as u32, (seed >> 32) as u32]);
    let mut random = [0; 4 * COUNTERS];
    for (i, four) in random.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        *four = [x[i] & 0xffff, x[i] >> 16, y[i] & 0xffff, y[i] >> 16];
    }
    random
}

/// What is finite stays finite, and what a `bf16` holds stays as it is.
#[inline(always)]
fn rounded_by_chance(value: f32, random: u32) -> bf16 {
    let bits = value.to_bits();
    let size = bits & 0x7fff_ffff;
    let most = if size == INFINITY_BITS { 0x7f80 } else { 0x7f7f };
    let rounded = (bits >> 16 & 0x8000) | ((size + random) >> 16).min(most);
    // As `bf16::from_f32` has it.
    let nan = bits >> 16 | 0x40;
    bf16::from_bits(if size > INFINITY_BITS { nan } else { rounded } as u16)
}

#[cfg(test)]
mod tests {
    use super::{Chance, random_of};

    /// Elements beyond 2^32 have the bits that a device, which counts in 32, gives them.
    #[test]
    fn elements_are_counted_in_32_bits() {
        let chance = Chance { seed: 3, step: 5 };
        let [last, first] = [(1u64 << 32) - 4, 1 << 32].map(|e| random_of(e, chance));
        assert_eq!(last[4..8], first[..4]);
        assert_eq!(first, random_of(0, chance));
        assert_ne!(last[..4], first[..4]);
    }
}
