//! chunk -> partial: the twin of `shaders/reduce.wgsl`. [`crate::numbers`] defines the sum.

mod parts;
mod rule;
mod side_by_side;
#[cfg(test)]
mod tests;

use crate::clip::Summation;
use crate::layout::{CHUNK, Partial, ROWS};

use super::block::{Values, not_here, with_elements};
use super::element::Element;
use super::lanes::{Bits, ByLanes, INFINITY_BITS, LANES, Lanes, Line, by_lanes};
use super::power;

use parts::{COLUMNS_, aligned, exponents_of, parts};
use rule::{Inf, One, Rule, Two};
pub(crate) use side_by_side::side_by_side;

const ROWS_: usize = ROWS as usize;
/// Neighbouring columns that lanes hold.
const GROUPS: usize = COLUMNS_ / LANES;
const NAN_FLAG: u32 = 1 << 31;
/// From exponent 28 on 2^(154 - exponent) is a normal `f32`, and subnormal elements have a `q` of 0, also
/// on a thread that flushes them.
const LEAST_CONVERTED: u32 = 28 << 23;

/// Rows that are read side by side: so many lines at the same place of a page fit the first cache.
const BAND: usize = 4;

/// Working memory of one thread, used again for every chunk: its last row, and a chunk as `f32` bits without what is
/// not finite.
pub(crate) struct Scratch {
    /// The largest magnitude that counts as finite: an element above it is not when it is unscaled.
    pub(super) largest: u32,
    finite: Vec<u32>,
    last: Row<u32>,
}

impl Scratch {
    pub(crate) fn new() -> Scratch {
        Scratch { largest: INFINITY_BITS - 1, finite: vec![], last: [[0; LANES]; GROUPS] }
    }
}

/// Adds up one chunk of 1 to [`CHUNK`] elements. `next` is what will be read after it.
pub(crate) fn reduce<T: Element>(
    chunk: &[T],
    next: &[Line],
    summation: Summation,
    scratch: &mut Scratch,
) -> Partial {
    debug_assert!(!chunk.is_empty() && chunk.len() <= CHUNK as usize);
    match summation {
        Summation::P(p) => power::reduce(chunk, f32::from_bits(p), scratch.largest),
        _ => reduce_bits(T::bits(chunk), next, summation, scratch),
    }
}

impl Values<'_> {
    /// The partial of a chunk; `next` is what will be read after it.
    pub(crate) fn reduce(&self, next: Values<'_>, summation: Summation, scratch: &mut Scratch) -> Partial {
        let next = next.bytes().as_chunks().0;
        with_elements!(Values, self, e => reduce(e, next, summation, scratch), _e => not_here())
    }
}

fn reduce_bits<E: Bits>(chunk: &[E], next: &[Line], summation: Summation, scratch: &mut Scratch) -> Partial {
    by_lanes(Chunk { chunk, next, summation, scratch })
}

struct Chunk<'a, E> {
    chunk: &'a [E],
    next: &'a [Line],
    summation: Summation,
    scratch: &'a mut Scratch,
}

impl<E: Bits> ByLanes for Chunk<'_, E> {
    type Output = Partial;

    #[inline(always)]
    fn run<L: Lanes>(self) -> Partial {
        let Chunk { chunk, next, summation, scratch } = self;
        match summation {
            Summation::One => reduce_by::<L, One, E>(chunk, next, scratch),
            Summation::Inf | Summation::P(_) => reduce_by::<L, Inf, E>(chunk, next, scratch),
            Summation::Two => reduce_by::<L, Two, E>(chunk, next, scratch),
        }
    }
}

#[inline(always)]
fn reduce_by<L: Lanes, R: Rule, E: Bits>(chunk: &[E], next: &[Line], scratch: &mut Scratch) -> Partial {
    let Scratch { largest, finite, last, .. } = scratch;
    if let Some(partial) = reduce_finite::<L, R, E>(chunk, next, *largest, last) {
        return partial;
    }
    let non_finite = replace_non_finite(chunk, *largest, finite);
    match reduce_finite::<L, R, u32>(finite, &[], *largest, last) {
        Some(partial) => Partial { non_finite, ..partial },
        None => Partial { lo: 0, hi: 0, exponent: 0, non_finite },
    }
}

/// The partial, if all elements are finite.
#[inline(always)]
fn reduce_finite<L: Lanes, R: Rule, E: Bits>(
    chunk: &[E],
    next: &[Line],
    largest: u32,
    last: &mut Row<u32>,
) -> Option<Partial> {
    if chunk.len() <= COLUMNS_ {
        reduce_single::<L, R, E>(chunk, next, largest)
    } else {
        reduce_columns::<L, R, E>(chunk, next, largest, last)
    }
}

/// Copies a chunk with zeros in the place of what is not finite. Returns their number with the NaN flag.
#[cold]
#[inline(never)]
fn replace_non_finite<E: Bits>(chunk: &[E], largest: u32, finite: &mut Vec<u32>) -> u32 {
    let magnitudes = || chunk.iter().map(|element| element.magnitude());
    finite.clear();
    finite.extend(magnitudes().map(|bits| if bits <= largest { bits } else { 0 }));
    let count = magnitudes().filter(|&bits| bits > largest).count() as u32;
    let nan = magnitudes().any(|bits| bits > INFINITY_BITS);
    count | if nan { NAN_FLAG } else { 0 }
}

/// A chunk of one row, whose columns have an element each, if all are finite.
#[inline(always)]
fn reduce_single<L: Lanes, R: Rule, E: Bits>(chunk: &[E], next: &[Line], largest: u32) -> Option<Partial> {
    let (whole, rest) = chunk.as_chunks::<LANES>();
    let last = E::magnitudes::<L>(&E::padded(rest));
    let mut tops = last;
    let mut next = Next(next);
    for bits in whole {
        next.prefetch::<L, E>();
        tops = tops.max(E::magnitudes(bits));
    }
    let top = tops.largest();
    if top > largest {
        return None;
    }
    if R::ALIGN == 0 {
        return Some(Partial { lo: 0, hi: 0, exponent: top, non_finite: 0 });
    }
    let exponent = (top >> 23).max(1);
    let mut sum = add_single::<L, R>(last, exponent, L::zeros());
    for bits in whole {
        sum = add_single::<L, R>(E::magnitudes(bits), exponent, sum);
    }
    let sum = L::sum(sum);
    Some(Partial { lo: sum as u32, hi: (sum >> 32) as u32, exponent, non_finite: 0 })
}

#[inline(always)]
fn add_single<L: Lanes, R: Rule>(bits: L, exponent: u32, sum: L::Wide) -> L::Wide {
    let (own, mantissa) = parts(bits);
    R::add_single(mantissa, L::splat(exponent).sub(own), sum)
}

type Row<E> = [[E; LANES]; GROUPS];

/// The rows of a chunk, the last one filled up with zeros, and rows of zeros up to a whole band.
struct Rows<'a, E> {
    rows: [&'a Row<E>; ROWS_],
    bands: usize,
}

impl<'a, E: Bits> Rows<'a, E> {
    #[inline(always)]
    fn new(chunk: &'a [E], last: &'a mut Row<u32>) -> Rows<'a, E> {
        let (whole, rest) = chunk.as_chunks::<COLUMNS_>();
        let mut rows = [bytemuck::cast_ref(E::ZEROS); ROWS_];
        for (to, row) in rows.iter_mut().zip(whole) {
            *to = bytemuck::cast_ref(row);
        }
        if let Some(to) = rows.get_mut(whole.len()).filter(|_| !rest.is_empty()) {
            let own: &mut [E] = bytemuck::cast_slice_mut(last.as_flattened_mut());
            let (used, empty) = own.split_at_mut(rest.len());
            used.copy_from_slice(rest);
            empty.fill(E::zeroed());
            // Of elements of 16 bits the first of two.
            *to = &bytemuck::cast_slice(own)[0];
        }
        Rows { rows, bands: chunk.len().div_ceil(BAND * COLUMNS_) }
    }

    /// The bands of rows.
    #[inline(always)]
    fn bands(&self) -> &[[&'a Row<E>; BAND]] {
        &self.rows.as_chunks::<BAND>().0[..self.bands]
    }
}

/// What is left of the next chunk to ask for. It is asked for in the order of memory, in which columns are
/// not read, all along, so that memory never rests.
struct Next<'a>(&'a [Line]);

impl Next<'_> {
    /// As many lines as the two sweeps over a chunk of such elements need each time.
    #[inline(always)]
    fn prefetch<L: Lanes, E: Bits>(&mut self) {
        if let Some((lines, rest)) = self.0.split_at_checked(size_of::<E>() / 2) {
            lines.iter().for_each(L::prefetch::<Line>);
            self.0 = rest;
        }
    }
}

#[inline(always)]
fn reduce_columns<L: Lanes, R: Rule, E: Bits>(
    chunk: &[E],
    next: &[Line],
    largest: u32,
    last: &mut Row<u32>,
) -> Option<Partial> {
    let next = &mut Next(next);
    let rows = Rows::new(chunk, last);
    let mut tops = [L::splat(0); GROUPS];
    largest_of_columns::<L, E>(&rows, next, &mut tops);
    let (mut top, mut common) = (L::splat(0), true);
    for &own in &tops {
        top = top.max(own);
        common &= converts(own);
    }
    let top = top.largest();
    if top > largest {
        return None;
    }
    if R::ALIGN == 0 {
        return Some(Partial { lo: 0, hi: 0, exponent: top, non_finite: 0 });
    }
    let exponent = (top >> 23).max(1);
    let sum = if R::CONVERTS && common {
        sum_of_columns::<L, R, E, true>(&rows, &tops, exponent, next)
    } else {
        sum_of_columns::<L, R, E, false>(&rows, &tops, exponent, next)
    };
    Some(Partial { lo: sum as u32, hi: (sum >> 32) as u32, exponent, non_finite: 0 })
}

/// The largest magnitude of each column.
#[inline(always)]
fn largest_of_columns<L: Lanes, E: Bits>(rows: &Rows<'_, E>, next: &mut Next<'_>, tops: &mut [L; GROUPS]) {
    for [a, b, c, d] in rows.bands() {
        for (g, top) in tops.iter_mut().enumerate() {
            next.prefetch::<L, E>();
            let first = E::magnitudes::<L>(&a[g]).max(E::magnitudes(&b[g]));
            let second = E::magnitudes::<L>(&c[g]).max(E::magnitudes(&d[g]));
            *top = top.max(first.max(second));
        }
    }
}

/// The sum of the columns, each aligned to the chunk's exponent.
#[inline(always)]
fn sum_of_columns<L: Lanes, R: Rule, E: Bits, const CONVERT: bool>(
    rows: &Rows<'_, E>,
    tops: &[L; GROUPS],
    exponent: u32,
    next: &mut Next<'_>,
) -> u64 {
    let mut sums = [L::zeros(); GROUPS];
    for band in rows.bands() {
        for (g, (sum, &top)) in sums.iter_mut().zip(tops).enumerate() {
            next.prefetch::<L, E>();
            let exponents = exponents_of(top);
            let factor = factor_of::<L, R>(exponents);
            for row in band {
                let row = &row[g];
                *sum = R::add(
                    if CONVERT {
                        E::load::<L>(row).product(factor)
                    } else {
                        aligned::<L, R>(E::magnitudes(row), exponents)
                    },
                    *sum,
                );
            }
        }
    }
    let mut total = L::zeros();
    for (&sum, &top) in sums.iter().zip(tops) {
        let own = exponents_of(top);
        let own = if R::ALIGN == 2 { own.shl::<1>() } else { own };
        let by = L::splat(R::ALIGN * exponent + R::RIGHT).sub(own);
        total = L::add_shifted(sum, R::LEFT, by, total);
    }
    L::sum(total)
}

/// Whether [`factor_of`] is a normal `f32` for columns of these largest magnitudes, or they are zeros.
#[inline(always)]
fn converts<L: Lanes>(top: L) -> bool {
    // 0 - 1 is the largest of all.
    top.sub(L::splat(1)).all_at_least(LEAST_CONVERTED - 1)
}

/// 2^(150 + GUARD - exponent), which makes an element its `q`: the product is exact unless below 1.
#[inline(always)]
fn factor_of<L: Lanes, R: Rule>(exponents: L) -> L {
    L::splat(127 + 150 + R::GUARD).sub(exponents).shl::<23>()
}
