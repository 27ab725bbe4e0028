//! Short units that lie one after the other: turned so that each is a lane.

use bytemuck::Zeroable;

use crate::clip::Summation;
use crate::cpu::element::Element;
use crate::cpu::lanes::LANES;
use crate::cpu::reduce;
use crate::layout::Partial;
use crate::segments::UnitView;

use super::singles::{SHORT, singles};

/// The partials of as many units as whole sets of lanes have, from `first` on; returns the unit after those and the partials that
/// are left.
pub(super) fn transposed<'p, T: Element>(
    elements: &[T],
    view: &UnitView,
    len: usize,
    first: u64,
    summation: Summation,
    largest: u32,
    partials: &'p mut [Partial],
) -> (u64, &'p mut [Partial]) {
    let (sets, rest) = partials.as_chunks_mut::<LANES>();
    let bits = T::bits(elements);
    let mut room = [[T::Bits::zeroed(); LANES]; SHORT as usize];
    let lines = &mut room[..len];
    let mut unit = first;
    for to in sets {
        let at: [usize; LANES] = std::array::from_fn(|k| view.kept.at(unit + k as u64) as usize);
        for (k, at) in at.into_iter().enumerate() {
            for (line, &element) in lines.iter_mut().zip(&bits[at..at + len]) {
                line[k] = element;
            }
        }
        match reduce::side_by_side(lines, summation, largest) {
            Some(all) => *to = all,
            None => to
                .iter_mut()
                .zip(at)
                .for_each(|(to, at)| *to = singles(&elements[at..at + len], summation, largest)),
        }
        unit += LANES as u64;
    }
    (unit, rest)
}
