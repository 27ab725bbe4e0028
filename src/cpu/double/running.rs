//! The norm of pieces, taken one after the other.

use crate::clip::Summation;
use crate::layout::{self, GUARD};

use super::super::block::Values;
use super::measure;
use super::norm::Norm;
use super::power::Powers;
use super::real::{F64_MIN_EXPONENT, Towards};
use super::sum::{Grid, Sum, Terms};

/// The norm of pieces that are added one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    norm: Norm,
    sum: Sum,
}

impl Running {
    pub(crate) fn new(norm: Norm) -> Running {
        Running { norm, sum: Sum::nothing(norm) }
    }

    /// Going on from a sum of `f32` elements, which has lost up to 2^-26 of itself.
    pub(crate) fn after(sum: &layout::Sum, summation: Summation) -> Running {
        let norm = Norm::from(summation);
        let mantissa = sum.mantissa.iter().rev().fold(0, |sum, &w| (sum << 32) | u128::from(w));
        let (exponent, guard) = (sum.exponent as i32, GUARD as i32);
        let grid = |unit: i32| {
            let mut grid = Grid::default();
            grid.add(mantissa, (unit - guard - norm.unit()) as u32, true);
            Terms::Grid(grid)
        };
        let largest = f64::from(f32::from_bits(sum.exponent)).to_bits();
        let terms = match norm {
            Norm::One => grid(exponent - 174),
            Norm::Two => grid(2 * (exponent - 150)),
            Norm::Inf => Terms::Largest(largest),
            Norm::P(_) => Terms::Powers(Powers::new(largest, f32::from_bits(sum.mantissa[0]).into())),
        };
        let (nan, first) = (sum.nan != 0, sum.first);
        Running { norm, sum: Sum { terms, non_finite: sum.non_finite.into(), nan, first } }
    }

    /// Adds a piece, which begins a tensor or at a multiple of 1,024 elements of one.
    pub(crate) fn add(&mut self, piece: Values<'_>) {
        self.sum.merge(&measure::sum_of(piece, self.norm), self.norm);
    }

    /// The norm so far: infinite or NaN where elements are.
    pub(crate) fn norm(&self) -> f64 {
        match (self.sum.non_finite, self.sum.nan) {
            (0, _) => self.sum.norm(self.norm).round(F64_MIN_EXPONENT, Towards::Nearest).to_f64(),
            (_, false) => f64::INFINITY,
            _ => f64::NAN,
        }
    }
}
