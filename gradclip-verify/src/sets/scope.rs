//! What shares one norm in a benchmark, and those norms in f64.

use gradclip::{Scope, Units};

/// The words of `--scope`.
pub const NAMES: [&str; 5] = ["global", "tensor", "unit", "unit-last", "row"];

/// The segments of a tensor: element `e` belongs to `first + (e / divide) % modulo`.
#[derive(Clone, Copy, Debug)]
struct Owner {
    first: usize,
    divide: usize,
    modulo: usize,
    elements: usize,
}

impl Owner {
    fn segment(&self, element: usize) -> usize {
        self.first + element / self.divide % self.modulo
    }
}

/// Tensors one after the other, cut into segments.
#[derive(Debug)]
pub struct Cut {
    owners: Vec<Owner>,
    /// How many segments there are.
    pub segments: usize,
}

impl Cut {
    /// `None` where rows are wanted of tensors that have other numbers of them.
    pub fn new(scope: Scope, shapes: &[Vec<u64>]) -> Option<Cut> {
        let mut cut = Cut { owners: Vec::new(), segments: usize::from(scope == Scope::Global) };
        let rows = shapes.first().and_then(|shape| shape.first()).copied();
        for shape in shapes {
            let elements = shape.iter().product::<u64>() as usize;
            let outputs = shape.first().map_or(1, |&n| n as usize).max(1);
            let axes = shape.iter().filter(|&&n| n > 1).count();
            let (divide, modulo) = match scope {
                Scope::Row if shape.first().copied() != rows => return None,
                Scope::Row => (elements / outputs, outputs),
                Scope::Unit(Units::OutputFirst) if shape.len() > 1 => (elements / outputs, outputs),
                Scope::Unit(Units::OutputLast) if axes > 1 && shape.len() <= 3 => (1, elements / outputs),
                Scope::Unit(Units::OutputLast) if axes > 1 => (1, shape.last().map_or(1, |&n| n as usize)),
                _ => (elements, 1),
            };
            let shared = matches!(scope, Scope::Global | Scope::Row);
            let first = if shared { 0 } else { cut.segments };
            cut.segments = if shared { cut.segments.max(modulo) } else { first + modulo };
            cut.owners.push(Owner { first, divide: divide.max(1), modulo, elements });
        }
        Some(cut)
    }

    /// The norm of each segment.
    pub fn norms(&self, mut values: &[f32]) -> Vec<f64> {
        let mut squares = vec![0.0; self.segments];
        for owner in &self.owners {
            let (own, rest) = values.split_at(owner.elements);
            for (run, elements) in own.chunks(owner.divide).enumerate() {
                let sum: f64 = elements.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
                squares[owner.first + run % owner.modulo] += sum;
            }
            values = rest;
        }
        squares.into_iter().map(f64::sqrt).collect()
    }

    /// The segment of each of `count` elements from `first` on.
    pub fn segments(&self, first: usize, count: usize) -> impl Iterator<Item = usize> {
        let mut begin = 0;
        self.owners.iter().flat_map(move |owner| {
            let (from, to) = (first.max(begin), (first + count).min(begin + owner.elements));
            let shift = begin;
            begin += owner.elements;
            (from..to.max(from)).map(move |e| owner.segment(e - shift))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_belong_to_the_segment_of_their_place() {
        let shapes = [vec![2, 3], vec![4]];
        let segments = |name: &str| -> Option<Vec<usize>> {
            let cut = Cut::new(name.parse().ok()?, &shapes)?;
            Some(cut.segments(1, 8).collect())
        };
        assert_eq!(segments("global"), Some(vec![0; 8]));
        assert_eq!(segments("tensor"), Some(vec![0, 0, 0, 0, 0, 1, 1, 1]));
        assert_eq!(segments("unit"), Some(vec![0, 0, 1, 1, 1, 2, 2, 2]));
        assert_eq!(segments("unit-last"), Some(vec![1, 2, 0, 1, 2, 3, 3, 3]));
        assert_eq!(segments("row"), None);
        let rows = Cut::new(Scope::Row, &[vec![2, 2], vec![2]])
            .map(|cut| cut.norms(&[3.0, 0.0, 1.0, 2.0, 4.0, 2.0]));
        assert_eq!(rows, Some(vec![5.0, 3.0]));
        assert!(NAMES.iter().all(|name| name.parse::<Scope>().is_ok()));
    }
}
