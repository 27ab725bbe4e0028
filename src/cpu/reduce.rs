//! chunk -> partial: the twin of `shaders/reduce.wgsl`. [`crate::numbers`] defines the sum.

use crate::clip::Kind;
use crate::layout::{CHUNK, COLUMNS, Partial, ROWS};

use super::element::Element;
use super::lanes::{LANES, Lanes, Portable};
use super::power;

const COLUMNS_: usize = COLUMNS as usize;
const ROWS_: usize = ROWS as usize;
const INFINITY_BITS: u32 = 0x7f80_0000;
const MAGNITUDE: u32 = 0x7fff_ffff;
const NAN_FLAG: u32 = 1 << 31;

/// Working memory of one thread, used again for every chunk.
pub(crate) struct Scratch {
    /// A chunk as `f32` bits, for element types that are not.
    bits: Vec<u32>,
    /// Three sums and the exponent of each column.
    sums: [[u32; COLUMNS_]; 3],
    exponent: [u32; COLUMNS_],
}

impl Scratch {
    pub(crate) fn new() -> Scratch {
        Scratch { bits: Vec::new(), sums: [[0; COLUMNS_]; 3], exponent: [0; COLUMNS_] }
    }
}

/// Adds up one chunk of 1 to [`CHUNK`] elements.
pub(crate) fn reduce<T: Element>(chunk: &[T], kind: Kind, scratch: &mut Scratch) -> Partial {
    debug_assert!(!chunk.is_empty() && chunk.len() <= CHUNK as usize);
    if let Kind::P(p) = kind {
        return power::reduce(chunk, f32::from_bits(p));
    }
    if let Some(bits) = T::as_f32_bits(chunk) {
        return reduce_bits(bits, kind, scratch);
    }
    let mut bits = std::mem::take(&mut scratch.bits);
    bits.clear();
    bits.extend(chunk.iter().map(|e| e.f32_bits()));
    let partial = reduce_bits(&bits, kind, scratch);
    scratch.bits = bits;
    partial
}

fn reduce_bits(chunk: &[u32], kind: Kind, scratch: &mut Scratch) -> Partial {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vnni")
        {
            // SAFETY: the features that the function is compiled for were just detected.
            return unsafe { reduce_avx512(chunk, kind, scratch) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: as above.
            return unsafe { reduce_avx2(chunk, kind, scratch) };
        }
    }
    reduce_lanes::<Portable>(chunk, kind, scratch)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn reduce_avx512(chunk: &[u32], kind: Kind, scratch: &mut Scratch) -> Partial {
    reduce_lanes::<super::lanes::x86::Avx512>(chunk, kind, scratch)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn reduce_avx2(chunk: &[u32], kind: Kind, scratch: &mut Scratch) -> Partial {
    reduce_lanes::<super::lanes::x86::Avx2>(chunk, kind, scratch)
}

#[inline(always)]
fn reduce_lanes<L: Lanes>(chunk: &[u32], kind: Kind, scratch: &mut Scratch) -> Partial {
    match kind {
        Kind::One => reduce_by::<L, One>(chunk, scratch),
        Kind::Inf | Kind::P(_) => reduce_by::<L, Inf>(chunk, scratch),
        Kind::Two => reduce_by::<L, Two>(chunk, scratch),
    }
}

/// How a norm adds up the elements of a column.
trait Rule {
    /// Powers of two by which one step of the exponent moves a sum.
    const ALIGN: u32;
    /// Adds one row to the three sums.
    fn add<L: Lanes>(sums: [L; 3], row: L, exponent: L) -> [L; 3];
    /// The column's mantissa.
    fn mantissa(sums: [u32; 3]) -> u64;
}

struct One;
struct Two;
struct Inf;

impl Rule for One {
    const ALIGN: u32 = 1;

    #[inline(always)]
    fn add<L: Lanes>([high, low, unused]: [L; 3], row: L, exponent: L) -> [L; 3] {
        let q = aligned::<L, 8>(row, exponent);
        [high.add(q.shr::<16>()), low.add(q.and(L::splat(0xffff))), unused]
    }

    #[inline(always)]
    fn mantissa([high, low, _]: [u32; 3]) -> u64 {
        (u64::from(high) << 32) + (u64::from(low) << 16)
    }
}

impl Rule for Two {
    const ALIGN: u32 = 2;

    // Halves of 14 bits make products of 28, sixteen of which fit a word.
    #[inline(always)]
    fn add<L: Lanes>([high, cross, low]: [L; 3], row: L, exponent: L) -> [L; 3] {
        let q = aligned::<L, 4>(row, exponent);
        let (h, l) = (q.shr::<14>(), q.and(L::splat(0x3fff)));
        [high.add_product(h, h), cross.add_product(h, l), low.add_product(l, l)]
    }

    #[inline(always)]
    fn mantissa([high, cross, low]: [u32; 3]) -> u64 {
        (u64::from(high) << 20) + (u64::from(cross) << 7) + u64::from(low >> 8)
    }
}

impl Rule for Inf {
    const ALIGN: u32 = 0;

    #[inline(always)]
    fn add<L: Lanes>(sums: [L; 3], _: L, _: L) -> [L; 3] {
        sums
    }

    #[inline(always)]
    fn mantissa(_: [u32; 3]) -> u64 {
        0
    }
}

/// `q` of each lane: the mantissa with `GUARD` bits below it, aligned to the exponent.
#[inline(always)]
fn aligned<L: Lanes, const GUARD: u32>(bits: L, exponent: L) -> L {
    let field = bits.shr::<23>().max(L::splat(1));
    let mantissa = bits.sub(field.sub(L::splat(1)).shl::<23>());
    mantissa.shl::<GUARD>().shr_by(exponent.sub(field))
}

/// Sixteen neighbouring columns, `rows` of them.
struct Block<'a> {
    chunk: &'a [u32],
    first: usize,
    rows: usize,
}

impl Block<'_> {
    /// Magnitude bits of a row; lanes past the end of the chunk are 0.
    #[inline(always)]
    fn row<L: Lanes>(&self, r: usize) -> L {
        let begin = r * COLUMNS_ + self.first;
        let row = match self.chunk.get(begin..).and_then(<[u32]>::first_chunk::<LANES>) {
            Some(full) => L::load(full),
            None => self.ragged(begin),
        };
        row.and(L::splat(MAGNITUDE))
    }

    #[cold]
    #[inline(never)]
    fn ragged<L: Lanes>(&self, begin: usize) -> L {
        let mut padded = [0; LANES];
        if let Some(rest) = self.chunk.get(begin..) {
            padded[..rest.len()].copy_from_slice(rest);
        }
        L::load(&padded)
    }
}

#[inline(always)]
fn reduce_by<L: Lanes, R: Rule>(chunk: &[u32], scratch: &mut Scratch) -> Partial {
    let used = COLUMNS_.min(chunk.len().next_multiple_of(LANES));
    let rows = chunk.len().div_ceil(COLUMNS_);
    let mut non_finite = 0;
    for first in (0..used).step_by(LANES) {
        let block = Block { chunk, first, rows };
        let mut top = L::splat(0);
        for r in 0..rows {
            top = top.max(block.row(r));
        }
        if top.any_at_least(INFINITY_BITS) {
            non_finite = replace_by_finite::<R>(&block, scratch, non_finite);
            continue;
        }
        let exponent = if R::ALIGN == 0 { top } else { top.shr::<23>().max(L::splat(1)) };
        let mut sums = [L::splat(0); 3];
        for r in 0..rows {
            sums = R::add(sums, block.row(r), exponent);
        }
        store(exponent, &mut scratch.exponent, first);
        for (sum, to) in sums.into_iter().zip(&mut scratch.sums) {
            store(sum, to, first);
        }
    }
    total::<R>(scratch, used, non_finite)
}

#[inline(always)]
fn store<L: Lanes>(lanes: L, to: &mut [u32; COLUMNS_], first: usize) {
    if let Some(to) = to[first..].first_chunk_mut() {
        lanes.store(to);
    }
}

/// A block with non-finite elements: counts them, and sums it with zeros in their place. Returns
/// the count so far with the NaN flag.
#[cold]
#[inline(never)]
fn replace_by_finite<R: Rule>(block: &Block<'_>, scratch: &mut Scratch, non_finite: u32) -> u32 {
    let (mut count, mut nan) = (non_finite & !NAN_FLAG, non_finite & NAN_FLAG);
    let mut finite = [0; LANES * ROWS_];
    for r in 0..block.rows {
        let mut row = [0; LANES];
        block.row::<Portable>(r).store(&mut row);
        for (to, bits) in finite[r * LANES..].iter_mut().zip(row) {
            if bits < INFINITY_BITS {
                *to = bits;
            } else {
                count += 1;
                nan |= if bits > INFINITY_BITS { NAN_FLAG } else { 0 };
            }
        }
    }
    let rows = || finite.chunks_exact(LANES).filter_map(<[u32]>::first_chunk).map(Portable::load);
    let top = rows().fold(Portable::splat(0), Portable::max);
    let exponent = if R::ALIGN == 0 { top } else { top.shr::<23>().max(Portable::splat(1)) };
    let sums = rows().fold([Portable::splat(0); 3], |sums, row| R::add(sums, row, exponent));
    store(exponent, &mut scratch.exponent, block.first);
    for (sum, to) in sums.into_iter().zip(&mut scratch.sums) {
        store(sum, to, block.first);
    }
    count | nan
}

/// Aligns the columns to the largest exponent, and adds.
#[inline(always)]
fn total<R: Rule>(scratch: &Scratch, used: usize, non_finite: u32) -> Partial {
    let exponents = &scratch.exponent[..used];
    let exponent = exponents.iter().fold(0, |a, &b| a.max(b));
    let mut mantissa = 0u64;
    if R::ALIGN > 0 {
        let [a, b, c] = scratch.sums.each_ref().map(|sums| &sums[..used]);
        for i in 0..used {
            // A mantissa has at most 52 bits.
            let shift = (R::ALIGN * (exponent - exponents[i])).min(63);
            mantissa += R::mantissa([a[i], b[i], c[i]]) >> shift;
        }
    }
    Partial { lo: mantissa as u32, hi: (mantissa >> 32) as u32, exponent, non_finite }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every register width gives the same records, at every raggedness and for any bits.
    #[test]
    fn all_lane_types_agree() {
        let mut state = 7u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 32) as u32
        };
        let mut scratch = Scratch::new();
        for len in [1, 15, 16, 17, 1000, 1024, 1030, 2047, 9000, 16_383, 16_384] {
            for mask in [u32::MAX, 0x3fff_ffff, 0x007f_ffff] {
                let chunk: Vec<u32> = (0..len).map(|_| next() & mask).collect();
                for kind in [Kind::One, Kind::Two, Kind::Inf] {
                    let portable = reduce_lanes::<Portable>(&chunk, kind, &mut scratch);
                    assert_eq!(reduce_bits(&chunk, kind, &mut scratch), portable, "{len} {kind:?}");
                    #[cfg(target_arch = "x86_64")]
                    if is_x86_feature_detected!("avx2") {
                        // SAFETY: just detected.
                        let avx2 = unsafe { reduce_avx2(&chunk, kind, &mut scratch) };
                        assert_eq!(avx2, portable, "{len} {kind:?}");
                    }
                }
            }
        }
    }
}
