//! Chunks of neighbouring units at once, a unit a lane: nothing is gathered, and what one lane does all do.

use crate::clip::Summation;
use crate::cpu::lanes::{Bits, ByLanes, LANES, Lanes, by_lanes};
use crate::layout::Partial;

use super::parts::{COLUMNS_, aligned, exponents_of, parts};
use super::rule::{Inf, One, Rule, Two};

/// The partials of one chunk of each unit, of whose elements each line holds one a unit; none if one is above
/// `largest` or any p is asked for.
pub(crate) fn side_by_side<E: Bits>(
    lines: &[[E; LANES]],
    summation: Summation,
    largest: u32,
) -> Option<[Partial; LANES]> {
    match summation {
        Summation::P(_) => None,
        _ => by_lanes(Chunks { lines, summation, largest }),
    }
}

pub(super) struct Chunks<'a, E> {
    pub(super) lines: &'a [[E; LANES]],
    pub(super) summation: Summation,
    pub(super) largest: u32,
}

impl<E: Bits> ByLanes for Chunks<'_, E> {
    type Output = Option<[Partial; LANES]>;

    #[inline(always)]
    fn run<L: Lanes>(self) -> Option<[Partial; LANES]> {
        let mut top = L::splat(0);
        for line in self.lines {
            top = top.max(E::magnitudes(line));
        }
        if top.largest() > self.largest {
            return None;
        }
        Some(match self.summation {
            Summation::One => partials::<L, One, E>(self.lines, top),
            Summation::Inf | Summation::P(_) => partials::<L, Inf, E>(self.lines, top),
            Summation::Two => partials::<L, Two, E>(self.lines, top),
        })
    }
}

#[inline(always)]
fn partials<L: Lanes, R: Rule, E: Bits>(lines: &[[E; LANES]], top: L) -> [Partial; LANES] {
    let exponents = if R::ALIGN == 0 { top } else { exponents_of(top) };
    let sums = match R::ALIGN {
        0 => L::zeros(),
        _ if lines.len() <= COLUMNS_ => sum_of_singles::<L, R, E>(lines, exponents),
        _ => sum_of_columns::<L, R, E>(lines, exponents),
    };
    let (mut own, sums) = ([0; LANES], L::each(sums));
    exponents.store(&mut own);
    std::array::from_fn(|i| Partial {
        lo: sums[i] as u32,
        hi: (sums[i] >> 32) as u32,
        exponent: own[i],
        non_finite: 0,
    })
}

// Loops, not iterators: a closure that is not inlined would be compiled for registers that every processor has.

/// Each element is a column of its own.
#[inline(always)]
fn sum_of_singles<L: Lanes, R: Rule, E: Bits>(lines: &[[E; LANES]], exponents: L) -> L::Wide {
    let mut sum = L::zeros();
    for line in lines {
        let (own, mantissa) = parts(E::magnitudes::<L>(line));
        sum = R::add_single(mantissa, exponents.sub(own), sum);
    }
    sum
}

#[inline(always)]
fn sum_of_columns<L: Lanes, R: Rule, E: Bits>(lines: &[[E; LANES]], exponents: L) -> L::Wide {
    let power = |exponents: L| if R::ALIGN == 2 { exponents.shl::<1>() } else { exponents };
    let exponents = power(exponents);
    let mut total = L::zeros();
    for c in 0..COLUMNS_ {
        let mut top = L::splat(0);
        for r in (c..lines.len()).step_by(COLUMNS_) {
            top = top.max(E::magnitudes(&lines[r]));
        }
        let own = exponents_of(top);
        let mut sum = L::zeros();
        for r in (c..lines.len()).step_by(COLUMNS_) {
            sum = R::add(aligned::<L, R>(E::magnitudes(&lines[r]), own), sum);
        }
        // What the exponents of chunk and column differ by, and what the rule divides by besides.
        let by = exponents.sub(power(own).sub(L::splat(R::RIGHT)));
        total = L::add_shifted(sum, R::LEFT, by, total);
    }
    total
}
