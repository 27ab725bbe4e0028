//! A tensor as units: which axes are kept, and which are summed over.

use std::ops::Range;

use crate::clip::Units;

/// One dimension of a tensor: neighbouring axes that are all kept, or all summed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Axis {
    pub(crate) size: u64,
    /// Distance of neighbours in elements.
    pub(crate) stride: u64,
}

/// A tensor as units: element `i` of unit `u` lies at
/// `(u / kept.low.size) * kept.high.stride + (u % kept.low.size) * kept.low.stride`, and the same with
/// `i` and `reduced`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UnitView {
    pub(crate) units: u64,
    /// Elements of a unit.
    pub(crate) len: u64,
    pub(crate) kept: Pair,
    pub(crate) reduced: Pair,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) high: Axis,
    pub(crate) low: Axis,
}

impl Pair {
    fn new(axes: &[Axis]) -> Option<Pair> {
        let none = Axis { size: 1, stride: 0 };
        match *axes {
            [] => Some(Pair { high: none, low: none }),
            [low] => Some(Pair { high: none, low }),
            [low, high] => Some(Pair { high, low }),
            _ => None,
        }
    }

    pub(crate) fn at(&self, i: u64) -> u64 {
        // Where items lie on one axis nothing has to be divided.
        if i < self.low.size {
            return i * self.low.stride;
        }
        (i / self.low.size) * self.high.stride + (i % self.low.size) * self.low.stride
    }

    /// Smallest and largest offset of the items from `begin` to before `end`.
    pub(crate) fn span(&self, begin: u64, end: u64) -> (u64, u64) {
        let last = end - 1;
        if begin / self.low.size == last / self.low.size {
            return (self.at(begin), self.at(last));
        }
        let whole = (self.low.size - 1) * self.low.stride;
        ((begin / self.low.size) * self.high.stride, (last / self.low.size) * self.high.stride + whole)
    }
}

impl UnitView {
    /// A tensor of this shape, its units what `sums_over` leaves.
    pub(super) fn new(shape: &[u64], sums_over: impl Fn(usize) -> bool) -> Option<UnitView> {
        let (mut kept, mut reduced): (Vec<Axis>, Vec<Axis>) = (Vec::new(), Vec::new());
        let mut stride = 1u64;
        let mut last = None;
        for (axis, &size) in shape.iter().enumerate().rev() {
            let over = sums_over(axis);
            let axes = if over { &mut reduced } else { &mut kept };
            match axes.last_mut() {
                _ if size == 1 => {}
                Some(inner) if last == Some(over) => inner.size *= size,
                _ => {
                    axes.push(Axis { size, stride });
                    last = Some(over);
                }
            }
            stride *= size;
        }
        let count = |axes: &[Axis]| axes.iter().map(|a| a.size).product();
        Some(UnitView {
            units: count(&kept),
            len: count(&reduced),
            kept: Pair::new(&kept)?,
            reduced: Pair::new(&reduced)?,
        })
    }

    /// The units that `units` says, of a tensor of this shape.
    pub(crate) fn of(shape: &[u64], units: Units) -> Result<UnitView, String> {
        let rank = shape.len();
        let view = match units {
            Units::OutputFirst if rank <= 1 => UnitView::new(shape, |_| true),
            Units::OutputFirst => UnitView::new(shape, |axis| axis > 0),
            Units::OutputLast if shape.iter().filter(|&&n| n > 1).count() <= 1 => {
                UnitView::new(shape, |_| true)
            }
            Units::OutputLast if rank > 5 => return Err("rank 5 or less for output-last units".into()),
            Units::OutputLast if rank <= 3 => UnitView::new(shape, |axis| axis == 0),
            Units::OutputLast => UnitView::new(shape, |axis| axis + 1 < rank),
            Units::Over(axes) if axes.rank() > rank => {
                return Err(format!("rank {} or more for the axes given", axes.rank()));
            }
            Units::Over(axes) => UnitView::new(shape, |axis| axes.contains(axis)),
        };
        view.ok_or_else(|| "axes that are summed over and others to alternate at most four times".into())
    }

    /// Whether the elements of a unit are neighbours.
    pub(crate) fn contiguous(&self) -> bool {
        self.reduced.high.size == 1 && (self.reduced.low.stride == 1 || self.len <= 1)
    }

    /// Cuts `len` elements of the tensor, from its element `first` on, into runs that belong to one unit each: their places from
    /// `first` on, and the unit.
    pub(crate) fn runs(&self, first: u64, len: usize) -> impl Iterator<Item = (Range<usize>, usize)> {
        let Pair { high, low } = self.kept;
        // The longest run whose elements surely belong to the same unit.
        let run = if self.units == 1 { (first + len as u64).max(1) } else { low.stride.max(1) };
        let (mut at, mut next, mut unit) = (0, run - first % run, self.unit_of(first));
        std::iter::from_fn(move || {
            let places = at as usize..(next as usize).min(len);
            let own = (places.start < len).then_some((places, unit as usize))?;
            (at, next) = (next, next + run);
            unit = match high.size {
                // Units of one axis follow each other: nothing has to be divided.
                1 if unit + 1 < low.size => unit + 1,
                1 => 0,
                _ => self.unit_of(first + at),
            };
            Some(own)
        })
    }

    /// The unit that element `e` of the tensor belongs to.
    pub(crate) fn unit_of(&self, e: u64) -> u64 {
        let Pair { high, low } = self.kept;
        (e / low.stride.max(1)) % low.size + (e / high.stride.max(1)) % high.size * low.size
    }

    /// Chunks of a unit.
    pub(crate) fn chunks(&self) -> u64 {
        self.len.div_ceil(u64::from(crate::layout::CHUNK))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every element belongs to the unit that names it, each once, in row-major order.
    #[test]
    fn units_hold_every_element_once() {
        let shapes: [&[u64]; 9] = [
            &[],
            &[7],
            &[4, 5],
            &[1, 19],
            &[3, 1, 4],
            &[2, 3, 4],
            &[3, 3, 8, 12],
            &[2, 1, 3, 2, 5],
            &[4, 1, 1],
        ];
        for shape in shapes {
            let elements: u64 = shape.iter().product();
            for mask in 0u32..1 << shape.len() {
                let Some(view) = UnitView::new(shape, |axis| mask >> axis & 1 == 1) else { continue };
                assert_eq!(view.units * view.len, elements);
                let mut met = vec![false; elements as usize];
                for u in 0..view.units {
                    let mut last = None;
                    for i in 0..view.len {
                        let e = view.kept.at(u) + view.reduced.at(i);
                        assert!(!std::mem::replace(&mut met[e as usize], true), "{shape:?} {mask:b}");
                        assert_eq!(view.unit_of(e), u, "{shape:?} {mask:b}");
                        assert!(last < Some(e));
                        last = Some(e);
                        let (low, high) = view.reduced.span(i / 2, i + 1);
                        assert!((low..=high).contains(&view.reduced.at(i)));
                    }
                }
            }
        }
    }

    /// Runs from any element on say of each element the unit that it belongs to, and a unit alone is one run.
    #[test]
    fn runs_name_the_unit_of_every_element() {
        let shapes: [&[u64]; 6] = [&[], &[7], &[1, 19], &[3, 1, 4], &[3, 3, 2, 5], &[2, 1, 3, 2, 5]];
        for shape in shapes {
            let elements: u64 = shape.iter().product();
            for mask in 0u32..1 << shape.len() {
                let Some(view) = UnitView::new(shape, |axis| mask >> axis & 1 == 1) else { continue };
                for (first, end) in (0..elements).flat_map(|f| (f..=elements).map(move |e| (f, e))) {
                    let runs: Vec<_> = view.runs(first, (end - first) as usize).collect();
                    let units =
                        runs.iter().flat_map(|(run, unit)| run.clone().map(move |at| (at, *unit as u64)));
                    let expected = (first..end).enumerate().map(|(at, e)| (at, view.unit_of(e)));
                    assert!(units.eq(expected), "{shape:?} {mask:b} {first}..{end}: {runs:?}");
                    assert!(view.units > 1 || runs.len() <= 1, "{shape:?} {mask:b} {first}..{end}: {runs:?}");
                }
            }
        }
    }

    #[test]
    fn layouts_are_those_of_the_peers() {
        let units = |shape: &[u64], units| {
            let view = UnitView::of(shape, units).unwrap();
            (view.units, view.len)
        };
        assert_eq!(units(&[24, 17], Units::OutputFirst), (24, 17));
        assert_eq!(units(&[1, 19], Units::OutputFirst), (1, 19));
        assert_eq!(units(&[19], Units::OutputFirst), (1, 19));
        assert_eq!(units(&[24, 17], Units::OutputLast), (17, 24));
        assert_eq!(units(&[8, 5, 6], Units::OutputLast), (30, 8));
        assert_eq!(units(&[3, 3, 8, 12], Units::OutputLast), (12, 72));
        assert_eq!(units(&[1, 19], Units::OutputLast), (1, 19));
        assert_eq!(units(&[12, 8, 3, 3], Units::over(&[1, 2, 3])), (12, 72));
        assert_eq!(units(&[2, 3, 4], Units::over(&[0, 2])), (3, 8));
        assert_eq!(units(&[2, 3], Units::over(&[])), (6, 1));
        assert!(UnitView::of(&[2, 3], Units::over(&[2])).is_err());
        assert!(UnitView::of(&[2, 3], Units::over(&[usize::MAX])).is_err());
        assert!(UnitView::of(&[2; 6], Units::OutputLast).is_err());
        assert!(UnitView::of(&[2; 6], Units::over(&[0, 2, 4])).is_err());
    }
}
