//! Which elements share a limit: from shapes and names alone, by the indices of every element.

use gradclip::{Scope, Units};

use crate::tensor::Tensor;

/// The segment of each element of a tensor.
#[derive(Clone, Debug)]
enum Owner {
    One(usize),
    Each(Vec<usize>),
}

/// The segments of some tensors.
#[derive(Clone, Debug)]
pub struct Segments {
    owners: Vec<Owner>,
    /// How many there are.
    pub count: usize,
}

impl Segments {
    /// Those of a scope.
    pub fn of(tensors: &[Tensor], scope: Scope) -> Segments {
        let shape = |t: &Tensor| t.shape.clone().unwrap_or_else(|| vec![t.data.len() as u64]);
        let whole = |owner: fn(usize) -> usize| (0..tensors.len()).map(|t| Owner::One(owner(t))).collect();
        let mut count = 0;
        let owners = match scope {
            Scope::Group => {
                let mut names: Vec<Option<&str>> = Vec::new();
                let mut one = |tensor: &Tensor| {
                    let name = tensor.group.map(|g| g.name);
                    let known = names.iter().position(|n| *n == name);
                    let at = known.unwrap_or(names.len());
                    names.extend(known.is_none().then_some(name));
                    count = names.len();
                    Owner::One(at)
                };
                tensors.iter().map(&mut one).collect()
            }
            Scope::Tensor => {
                count = tensors.len();
                whole(|t| t)
            }
            Scope::Unit(units) => {
                let mut one = |tensor: &Tensor| {
                    let shape = shape(tensor);
                    let kept: Vec<bool> = (0..shape.len()).map(|axis| is_kept(&shape, units, axis)).collect();
                    let owner = Owner::Each(numbered(&shape, count, &kept));
                    let of_it = shape.iter().zip(&kept).filter(|(_, kept)| **kept).map(|(n, _)| n);
                    count += if shape.contains(&0) { 0 } else { of_it.product::<u64>() as usize };
                    owner
                };
                tensors.iter().map(&mut one).collect()
            }
            Scope::Row => {
                let of = |tensor: &Tensor| {
                    let shape = shape(tensor);
                    let kept: Vec<bool> = (0..shape.len()).map(|axis| axis == 0).collect();
                    Owner::Each(numbered(&shape, 0, &kept))
                };
                count = tensors.first().map_or(0, |t| shape(t)[0] as usize);
                tensors.iter().map(of).collect()
            }
            _ => {
                count = 1;
                whole(|_| 0)
            }
        };
        Segments { owners, count }
    }

    /// The segment of an element of a tensor.
    pub fn at(&self, tensor: usize, element: usize) -> usize {
        match &self.owners[tensor] {
            Owner::One(segment) => *segment,
            Owner::Each(segments) => segments[element],
        }
    }
}

/// Whether an axis counts units.
fn is_kept(shape: &[u64], units: Units, axis: usize) -> bool {
    match units {
        Units::OutputFirst => shape.len() > 1 && axis == 0,
        Units::OutputLast if shape.iter().filter(|&&n| n > 1).count() <= 1 => false,
        Units::OutputLast if shape.len() <= 3 => axis > 0,
        Units::OutputLast => axis + 1 == shape.len(),
        // Which axes a set holds is the library's own, so look for the one that it was made from.
        _ => (0u32..1 << shape.len()).any(|mask| {
            let axes: Vec<usize> = (0..shape.len()).filter(|axis| mask >> axis & 1 == 1).collect();
            Units::over(&axes) == units && !axes.contains(&axis)
        }),
    }
}

/// For each element the number that its place along the axes kept makes, in row-major order.
fn numbered(shape: &[u64], first: usize, kept: &[bool]) -> Vec<usize> {
    let number = |mut element: u64| {
        let (mut number, mut stride) = (0, 1);
        for (&size, kept) in shape.iter().zip(kept).rev() {
            if *kept {
                number += element % size * stride;
                stride *= size;
            }
            element /= size;
        }
        first + number as usize
    };
    (0..shape.iter().product()).map(number).collect()
}
