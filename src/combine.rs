//! partials -> tensors -> segments: the twin of `shaders/shared/combine.wgsl`.

use crate::clip::Summation;
use crate::layout::{GUARD, NONE, Partial, Sum};
use crate::segments::{Owner, Segments};

/// The sum of no items.
pub(crate) const NOTHING: Sum =
    Sum { mantissa: [0; 3], exponent: 0, non_finite: 0, nan: 0, first: NONE, pad: 0 };

/// Nothing with an exponent: what it is added to is aligned to that, if its own is smaller.
pub(crate) fn nothing_at(exponent: u32) -> Sum {
    Sum { exponent, ..NOTHING }
}

/// A chunk's partial as the sum of one item of tensor `tensor`.
#[inline]
pub(crate) fn item(partial: &Partial, tensor: u32, summation: Summation) -> Sum {
    let guard = if let Summation::P(_) = summation { 0 } else { GUARD };
    let mantissa = (u128::from(partial.lo) | (u128::from(partial.hi) << 32)) << guard;
    let non_finite = partial.non_finite & 0x7fff_ffff;
    Sum {
        mantissa: words(mantissa),
        exponent: partial.exponent,
        non_finite,
        nan: partial.non_finite >> 31,
        first: if non_finite == 0 { NONE } else { tensor },
        pad: 0,
    }
}

/// Adds up items: aligns every mantissa to the largest exponent by dropping low bits, and adds.
/// The order of the items changes no bit. Groups of them added up before may, unless each is aligned to the largest
/// exponent of all, as blocks of a tensor are on a GPU.
#[inline]
pub(crate) fn combine(items: impl Iterator<Item = Sum> + Clone, summation: Summation) -> Sum {
    let mut total = NOTHING;
    for sum in items.clone() {
        total.exponent = total.exponent.max(sum.exponent);
        total.non_finite = total.non_finite.saturating_add(sum.non_finite);
        total.nan |= sum.nan;
        total.first = total.first.min(sum.first);
    }
    total.mantissa = match summation {
        Summation::P(p) => add_powers(items, total.exponent, f32::from_bits(p)),
        _ => add(items, total.exponent, summation.align()),
    };
    total
}

/// Sums of segments that hold tensors whole, of their parameters, and of the whole set. `sums` has a place for each.
pub(crate) fn whole_segments(tensor_sums: &[Sum], parts: &Segments, summation: Summation, sums: &mut [Sum]) {
    let tensors = parts.owners.len();
    let mut first = 0;
    while first < tensors {
        let Owner::One(segment) = parts.owners[parts.order[first] as usize] else {
            first += 1;
            continue;
        };
        let members = parts.order[first..]
            .iter()
            .take_while(|&&tensor| parts.owners[tensor as usize] == Owner::One(segment))
            .count();
        let own = |from: usize| combine(tensor_sums[from..from + members].iter().copied(), summation);
        sums[segment as usize] = own(first);
        if parts.parameters {
            sums[(segment + parts.decided()) as usize] = own(first + tensors);
        }
        first += members;
    }
    if parts.total {
        let limited = tensor_sums[..parts.limited as usize].iter().copied();
        sums[parts.count as usize] = combine(limited, summation);
    }
}

fn add(items: impl Iterator<Item = Sum>, exponent: u32, align: u32) -> [u32; 3] {
    let mut mantissa = 0u128;
    for sum in items {
        let [lo, mid, hi] = sum.mantissa.map(u128::from);
        let shift = align * (exponent - sum.exponent);
        mantissa += if shift < 96 { (lo | (mid << 32) | (hi << 64)) >> shift } else { 0 };
    }
    words(mantissa)
}

/// The mantissa of sums brought to a common largest magnitude.
fn add_powers(items: impl Iterator<Item = Sum>, largest: u32, p: f32) -> [u32; 3] {
    let one = |s: Sum| f64::from(f32::from_bits(s.mantissa[0])) * power_of_ratio(s.exponent, largest, p);
    [(items.map(one).sum::<f64>() as f32).to_bits(), 0, 0]
}

/// (magnitude / largest)^p, both as f32 bits.
pub(crate) fn power_of_ratio(magnitude: u32, largest: u32, p: f32) -> f64 {
    let value = |bits| f64::from(f32::from_bits(bits));
    if magnitude == 0 { 0.0 } else { (value(magnitude) / value(largest)).powf(f64::from(p)) }
}

pub(crate) fn words(mantissa: u128) -> [u32; 3] {
    [mantissa as u32, (mantissa >> 32) as u32, (mantissa >> 64) as u32]
}
