//! chunk -> partial: the twin of `shaders/reduce.wgsl`.
//!
//! # The sum
//!
//! Write the magnitude of a finite `f32` as `m * 2^(e - 150)`, `e` its exponent field or 1 for a
//! subnormal, `m` its 24-bit mantissa. A *column* is 16 elements; `E` is its largest `e`. Each
//! element becomes the integer `q = floor(m * 2^4 / 2^(E - e))` of 28 bits, in units of
//! `2^(E - 154)`. The column's sum of `q` (L1) or of `q^2` (L2) is exact; L2 keeps it divided by
//! 256. Columns are then aligned to the chunk's largest `E` by dropping low bits, and added.
//!
//! # The error
//!
//! `m * 2^4` leaves `q` exact for `E - e <= 4`. A smaller element has `q < 2^23` and loses less
//! than 1, its square less than `2^24`; fifteen of them less than `2^28`, while the largest
//! element alone contributes `2^54`: relative error below `2^-26`. Each later alignment loses less
//! than one unit of `2^8` in a sum of at least `2^54`, `2^-46` for each column or chunk that is
//! not itself the largest; those add to the same bound only when thousands of columns lie far
//! below one, where they hardly count. Everything is rounded down, so the norm is at most `2^-27`
//! (0.125 ulp of an `f32` at the worst mantissa) too small before its one rounding.

use crate::clip::Kind;
use crate::layout::{CHUNK, COLUMNS, Partial, ROWS};

use super::element::Element;
use super::power;

const LANES: usize = 16;
const COLUMNS_: usize = COLUMNS as usize;
const ROWS_: usize = ROWS as usize;
const INFINITY_BITS: u32 = 0x7f80_0000;
const NAN_FLAG: u32 = 1 << 31;

/// Sixteen neighbouring columns: the unit of SIMD work.
type Block = [[u32; LANES]; ROWS_];

/// Sums and exponents of all columns of a chunk.
struct Columns {
    mantissa: [u64; COLUMNS_],
    exponent: [u32; COLUMNS_],
    used: usize,
    non_finite: u32,
    nan: bool,
}

/// Adds up one chunk of 1 to [`CHUNK`] elements.
pub(crate) fn reduce<T: Element>(chunk: &[T], kind: Kind) -> Partial {
    debug_assert!(!chunk.is_empty() && chunk.len() <= CHUNK as usize);
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vnni")
        {
            // SAFETY: the features that the function is compiled for were just detected.
            return unsafe { reduce_avx512(chunk, kind) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: as above.
            return unsafe { reduce_avx2(chunk, kind) };
        }
    }
    reduce_portable(chunk, kind)
}

// The same Rust compiled for wider registers: one source, so one result.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn reduce_avx512<T: Element>(chunk: &[T], kind: Kind) -> Partial {
    reduce_portable(chunk, kind)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn reduce_avx2<T: Element>(chunk: &[T], kind: Kind) -> Partial {
    reduce_portable(chunk, kind)
}

#[inline(always)]
pub(crate) fn reduce_portable<T: Element>(chunk: &[T], kind: Kind) -> Partial {
    match kind {
        Kind::One => reduce_with(chunk, sum_of_magnitudes, 1),
        Kind::Two => reduce_with(chunk, sum_of_squares, 2),
        Kind::Inf => reduce_with(chunk, |_, _| [0; LANES], 0),
        Kind::P(p) => power::reduce(chunk, f32::from_bits(p)),
    }
}

#[inline(always)]
fn reduce_with<T: Element>(
    chunk: &[T],
    sum: impl Fn(&Block, &[u32; LANES]) -> [u64; LANES] + Copy,
    align: u32,
) -> Partial {
    let mut columns = Columns {
        mantissa: [0; COLUMNS_],
        exponent: [0; COLUMNS_],
        used: COLUMNS_.min(chunk.len().next_multiple_of(LANES)),
        non_finite: 0,
        nan: false,
    };
    let mut first = 0;
    while first < columns.used {
        let mut block = load(chunk, first);
        let mut top = largest(&block);
        if top.iter().any(|&t| t >= INFINITY_BITS) {
            remove_non_finite(&mut block, &mut columns);
            top = largest(&block);
        }
        let exponent = if align == 0 { top } else { top.map(|t| (t >> 23).max(1)) };
        let sums = sum(&block, &exponent);
        columns.exponent[first..first + LANES].copy_from_slice(&exponent);
        columns.mantissa[first..first + LANES].copy_from_slice(&sums);
        first += LANES;
    }
    columns.total(align)
}

impl Columns {
    #[inline(always)]
    fn total(&self, align: u32) -> Partial {
        let exponents = &self.exponent[..self.used];
        let exponent = exponents.iter().fold(0, |a, &b| a.max(b));
        let mut mantissa = 0u64;
        for (&m, &e) in self.mantissa[..self.used].iter().zip(exponents) {
            let shift = align * (exponent - e);
            mantissa += if shift < 64 { m >> shift } else { 0 };
        }
        let nan = if self.nan { NAN_FLAG } else { 0 };
        Partial {
            lo: mantissa as u32,
            hi: (mantissa >> 32) as u32,
            exponent,
            non_finite: self.non_finite | nan,
        }
    }
}

/// Magnitude bits of the columns `first..first + LANES`; rows and lanes past the end are 0.
#[inline(always)]
fn load<T: Element>(chunk: &[T], first: usize) -> Block {
    let mut block = [[0; LANES]; ROWS_];
    for (r, row) in block.iter_mut().enumerate() {
        let begin = r * COLUMNS_ + first;
        if let Some(full) = chunk.get(begin..begin + LANES) {
            for (to, from) in row.iter_mut().zip(full) {
                *to = from.f32_bits() & 0x7fff_ffff;
            }
        } else if let Some(rest) = chunk.get(begin..) {
            for (to, from) in row.iter_mut().zip(rest) {
                *to = from.f32_bits() & 0x7fff_ffff;
            }
        } else {
            break;
        }
    }
    block
}

#[inline(always)]
fn largest(block: &Block) -> [u32; LANES] {
    let mut top = [0; LANES];
    for row in block {
        for (t, &b) in top.iter_mut().zip(row) {
            *t = (*t).max(b);
        }
    }
    top
}

#[cold]
#[inline(never)]
fn remove_non_finite(block: &mut Block, columns: &mut Columns) {
    for bits in block.iter_mut().flatten() {
        if *bits >= INFINITY_BITS {
            columns.non_finite += 1;
            columns.nan |= *bits > INFINITY_BITS;
            *bits = 0;
        }
    }
}

/// `q` of one element, 28 bits.
#[inline(always)]
fn aligned(bits: u32, exponent: u32) -> u32 {
    let field = (bits >> 23).max(1);
    let mantissa = bits - ((field - 1) << 23);
    (mantissa << 4) >> (exponent - field).min(31)
}

#[inline(always)]
fn sum_of_magnitudes(block: &Block, exponent: &[u32; LANES]) -> [u64; LANES] {
    let mut sum = [0u32; LANES];
    for row in block {
        for c in 0..LANES {
            sum[c] += aligned(row[c], exponent[c]);
        }
    }
    sum.map(u64::from)
}

/// The sum of `q^2`, divided by 256. Halves of 14 bits make products of 28, sixteen of which fit
/// a word; LLVM compiles them to the multiply-add of 16-bit pairs.
#[inline(always)]
fn sum_of_squares(block: &Block, exponent: &[u32; LANES]) -> [u64; LANES] {
    let (mut high, mut cross, mut low) = ([0u32; LANES], [0u32; LANES], [0u32; LANES]);
    for row in block {
        for c in 0..LANES {
            let q = aligned(row[c], exponent[c]);
            let (h, l) = ((q >> 14) & 0x3fff, q & 0x3fff);
            high[c] = high[c].wrapping_add(h * h);
            cross[c] = cross[c].wrapping_add(h * l);
            low[c] = low[c].wrapping_add(l * l);
        }
    }
    let mut sum = [0u64; LANES];
    for c in 0..LANES {
        sum[c] = (u64::from(high[c]) << 20) + (u64::from(cross[c]) << 7) + u64::from(low[c] >> 8);
    }
    sum
}
