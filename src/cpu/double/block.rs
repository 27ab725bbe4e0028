//! block of up to 1,024 elements -> its sum: the arithmetic whose error [`super`] derives.

use crate::layout::NONE;

use super::element::Wide;
use super::norm::{DROPPED, Norm};
use super::power::Powers;
use super::sum::{Sum, Terms};

/// Elements that share one exponent while they are added.
pub(super) const BLOCK: usize = 1024;
/// Squares that are added before low bits are dropped.
const AT_ONCE: usize = 4;
/// The bits of infinity.
const INFINITY_BITS: u64 = f64::INFINITY.to_bits();

/// The magnitudes of a block, zeros after them.
pub(super) type Magnitudes = [u64; BLOCK];

/// Adds elements, cut into blocks from their own start. A magnitude whose bits are above `most` counts as
/// not finite and is left out.
pub(super) fn sum<T: Wide>(
    elements: &[T],
    most: u64,
    norm: Norm,
    tensor: u32,
    magnitudes: &mut Magnitudes,
) -> Sum {
    let mut sum = Sum::nothing(norm);
    for own in elements.chunks(BLOCK) {
        let mut largest = 0i64;
        for (to, element) in magnitudes.iter_mut().zip(own) {
            *to = element.magnitude();
            // Signed comparisons are what vector units have.
            largest = largest.max(*to as i64);
        }
        add(
            &mut magnitudes[..own.len().next_multiple_of(AT_ONCE)],
            own.len(),
            largest as u64,
            most,
            norm,
            tensor,
            &mut sum,
        );
    }
    sum
}

/// Adds one block: the first `len` magnitudes, and some more that are ignored.
pub(super) fn add(
    magnitudes: &mut [u64],
    len: usize,
    mut largest: u64,
    most: u64,
    norm: Norm,
    tensor: u32,
    sum: &mut Sum,
) {
    magnitudes[len..].fill(0);
    if largest > most {
        let over = magnitudes.iter().filter(|&&m| m > most).count() as u64;
        sum.non_finite = sum.non_finite.saturating_add(over);
        sum.nan |= largest > INFINITY_BITS;
        sum.first = sum.first.min(tensor);
        magnitudes.iter_mut().for_each(|m| *m = if *m > most { 0 } else { *m });
        largest = magnitudes.iter().copied().max().unwrap_or(0);
    }
    let field = (largest >> 52).max(1) as u32;
    match (&mut sum.terms, norm) {
        _ if largest == 0 => {}
        (Terms::Grid(grid), Norm::One) => {
            let (mantissa, lossy) = magnitudes_of(magnitudes, field);
            grid.add(mantissa, norm.position(field), lossy);
        }
        (Terms::Grid(grid), _) => {
            let (mantissa, lossy) = squares_of(magnitudes, field);
            grid.add(mantissa, norm.position(field), lossy);
        }
        (Terms::Largest(own), _) => *own = largest.max(*own),
        (Terms::Powers(own), _) => {
            *own = own.merge(Powers::of(&magnitudes[..len], largest, norm.p()), norm.p());
        }
    }
    debug_assert!(sum.first == NONE || sum.non_finite > 0);
}

/// The mantissa of a magnitude, and by how many powers of two its exponent is below `field`.
#[inline(always)]
fn aligned(magnitude: u64, field: u32) -> (u64, u32) {
    let own = (magnitude >> 52).max(1);
    (magnitude - ((own - 1) << 52), field - own as u32)
}

/// The sum of q^2, in units of 2^16, and whether bits were dropped.
fn squares_of(magnitudes: &[u64], field: u32) -> (u128, bool) {
    let (mut total, mut lost) = (0u128, 0u64);
    let (quads, _) = magnitudes.as_chunks::<AT_ONCE>();
    for quad in quads {
        // Four squares of 63 bits just fit.
        let mut squares = 0u128;
        for &magnitude in quad {
            let (mantissa, by) = aligned(magnitude, field);
            let by = by.min(63);
            let wide = mantissa << 10;
            let q = wide >> by;
            lost |= wide ^ (q << by);
            squares += u128::from(q) * u128::from(q);
        }
        lost |= squares as u64 & ((1 << DROPPED) - 1);
        total += squares >> DROPPED;
    }
    (total, lost != 0)
}

/// The sum of q, and whether bits were dropped.
fn magnitudes_of(magnitudes: &[u64], field: u32) -> (u128, bool) {
    let (mut total, mut lost) = (0u128, 0u128);
    for &magnitude in magnitudes {
        let (mantissa, by) = aligned(magnitude, field);
        let by = by.min(127);
        let wide = u128::from(mantissa) << 60;
        let q = wide >> by;
        lost |= wide ^ (q << by);
        total += q;
    }
    (total, lost != 0)
}
