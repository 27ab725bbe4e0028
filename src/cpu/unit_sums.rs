//! Units and rows: the partials of each, and what they add up to.

use crate::clip::Summation;
use crate::combine;
use crate::layout::{Partial, Sum};
use crate::segments::{Owner, Segments};

use super::sources::Source;

/// Tensors that share a segment, at most, where their partials are added up in `f64`.
const FEW: usize = 1 << 10;

/// The units of tensors that share their segments: of one tensor, or rows over several.
#[derive(Clone, Copy)]
pub(super) struct Units<'a> {
    /// The segment of the first.
    pub(super) first: u32,
    pub(super) count: usize,
    own: &'a [Source],
    partials: &'a [Partial],
    /// Tensors of the set.
    tensors: usize,
    /// Whether each unit has one chunk of each tensor.
    whole: bool,
    summation: Summation,
}

impl<'a> Units<'a> {
    /// Those of all tensors, and of all parameters where they are measured.
    pub(super) fn all(
        sources: &'a [Source],
        partials: &'a [Partial],
        parts: &'a Segments,
        summation: Summation,
    ) -> impl Iterator<Item = Units<'a>> {
        let mut rest = sources;
        std::iter::from_fn(move || {
            loop {
                let Owner::Units { first, view } = parts.owner_of(rest.first()?.number) else {
                    rest = &rest[1..];
                    continue;
                };
                let shares = |s: &&Source| matches!(parts.owner_of(s.number), Owner::Units { first: f, view: v } if (f, v.units) == (first, view.units));
                let group = if view.units == 0 { 1 } else { rest.iter().take_while(shares).count() };
                let own;
                (own, rest) = rest.split_at(group);
                let count = view.units as usize;
                let whole = own.iter().all(|s| s.partials.len() == count);
                let tensors = parts.owners.len();
                return Some(Units { first, count, own, partials, tensors, whole, summation });
            }
        })
    }

    pub(super) fn summation(&self) -> Summation {
        self.summation
    }

    /// Those of rows that have a chunk each of every tensor, numbered from the first of them on.
    pub(super) fn of_rows(
        (sources, count): (&'a [Source], usize),
        partials: &'a [Partial],
        tensors: usize,
        summation: Summation,
    ) -> Units<'a> {
        Units { first: 0, count, own: sources, partials, tensors, whole: true, summation }
    }

    fn item(&self, s: &Source, p: &Partial) -> Sum {
        combine::item(p, (s.number % self.tensors) as u32, self.summation)
    }

    /// What a unit adds up to.
    #[inline]
    pub(super) fn sum(&self, unit: usize) -> Sum {
        let Units { own, partials, summation, .. } = *self;
        // A chunk each of every tensor, as most are, or several.
        if let ([s], true) = (own, self.whole) {
            return self.item(s, &partials[s.partials.start + unit]);
        }
        if self.whole {
            return combine::combine(
                own.iter().map(|s| self.item(s, &partials[s.partials.start + unit])),
                summation,
            );
        }
        let items = own.iter().flat_map(|s| {
            let chunks = partials[s.partials.clone()].iter().skip(unit).step_by(self.count);
            chunks.map(move |p| self.item(s, p))
        });
        combine::combine(items, summation)
    }

    /// About what its elements' magnitudes or squares add up to, within 2^-40 of it and of what [`Units::sum`] says where that is at
    /// least 2^-200; none where one is not finite, or where a unit has several chunks.
    #[inline]
    pub(super) fn about(&self, unit: usize) -> Option<f64> {
        let (align, unit_of) = match self.summation {
            Summation::One => (1, 174),
            Summation::Two => (2, 300),
            Summation::Inf | Summation::P(_) => return None,
        };
        if !self.whole || self.own.len() > FEW {
            return None;
        }
        let (mut total, mut non_finite) = (0.0, 0);
        for s in self.own {
            let p = &self.partials[s.partials.start + unit];
            // Of at most 62 bits: signed integers are converted by one instruction.
            let mantissa = (u64::from(p.hi) << 32 | u64::from(p.lo)) as i64 as f64;
            // Fields of elements are from 0 to 254.
            let power = 1023 + align * u64::from(p.exponent) - unit_of;
            total += mantissa * f64::from_bits(power << 52);
            non_finite |= p.non_finite;
        }
        (non_finite == 0).then_some(total)
    }
}
