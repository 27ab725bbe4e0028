//! Sums of magnitudes that do not depend on the order of what is added: see [`super`].

use crate::layout::NONE;

use super::norm::Norm;
use super::power::Powers;
use super::real::Real;

/// Digits of 32 bits that are kept, from the highest of all on.
const DIGITS: usize = 4;
const DIGIT: u32 = 32;
/// By how many units of its lowest bit a root or sum of 64 bits may be too small where something was
/// dropped: less than 2^-59 of it.
const SHORT_BY: u64 = 34;

/// A sum on a fixed grid: digit `i` stands for `digits[i] * 2^(32 (top - 3 + i))`. Digits are added
/// without carrying, each below 2^32 at first, so 2^32 of them fit; those below the four highest are
/// dropped, which ones depending on the largest thing added alone. So neither order nor grouping changes a
/// bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Grid {
    digits: [u64; DIGITS],
    top: u32,
    /// Whether anything that was dropped was not zero.
    lossy: bool,
}

impl Grid {
    /// Adds `mantissa * 2^position`, which has lost something smaller where `lossy`.
    pub(super) fn add(&mut self, mantissa: u128, position: u32, lossy: bool) {
        self.lossy |= lossy;
        if mantissa == 0 {
            return;
        }
        let (low, shift) = (position / DIGIT, position % DIGIT);
        let shifted = mantissa << shift;
        let highest = mantissa.checked_shr(128 - shift).unwrap_or(0);
        let digit = |i: u32| (shifted >> (DIGIT * i)) as u32;
        let digits = [digit(0), digit(1), digit(2), digit(3), highest as u32];
        let used = digits.iter().rposition(|&d| d != 0).unwrap_or(0) as u32;
        self.raise(low + used);
        for (index, digit) in (low..=low + used).zip(digits) {
            self.put(index, digit.into());
        }
    }

    pub(super) fn merge(&mut self, other: &Grid) {
        self.lossy |= other.lossy;
        self.raise(other.top);
        for (i, &digit) in other.digits.iter().enumerate() {
            // What is below digit 0 of the grid is zero.
            if digit != 0 {
                self.put(other.top + i as u32 - (DIGITS as u32 - 1), digit);
            }
        }
    }

    fn put(&mut self, index: u32, digit: u64) {
        match self.digits.get_mut((index + DIGITS as u32 - 1).wrapping_sub(self.top) as usize) {
            Some(own) => *own += digit,
            None => self.lossy |= digit != 0,
        }
    }

    /// Makes `top` the highest digit, if it is higher.
    fn raise(&mut self, top: u32) {
        let by = top.saturating_sub(self.top) as usize;
        if by == 0 {
            return;
        }
        let drop = by.min(DIGITS);
        self.lossy |= self.digits[..drop].iter().any(|&d| d != 0);
        self.digits.copy_within(drop.., 0);
        self.digits[DIGITS - drop..].fill(0);
        self.top = top;
    }

    /// The same with every digit below 2^32, but for what falls off below the four highest.
    pub(super) fn carried(mut self) -> Grid {
        for i in 1..DIGITS {
            self.digits[i] += self.digits[i - 1] >> DIGIT;
            self.digits[i - 1] &= u64::from(u32::MAX);
        }
        let over = self.digits[DIGITS - 1] >> DIGIT;
        if over > 0 {
            self.digits[DIGITS - 1] &= u64::from(u32::MAX);
            self.raise(self.top + 1);
            self.digits[DIGITS - 1] = over;
        }
        self
    }

    /// `mantissa * 2^exponent`, and whether that is too small.
    pub(super) fn value(self) -> (u128, i32, bool) {
        let Grid { digits, top, lossy } = self.carried();
        let mantissa = digits.iter().rev().fold(0, |sum, &d| (sum << DIGIT) | u128::from(d));
        (mantissa, DIGIT as i32 * (top as i32 - (DIGITS as i32 - 1)), lossy)
    }
}

/// What was summed of magnitudes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Terms {
    /// Magnitudes or squares, for norm types 1 and 2.
    Grid(Grid),
    /// Bits of the largest magnitude.
    Largest(u64),
    Powers(Powers),
}

/// The sum of a block, a tensor, a segment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sum {
    pub(super) terms: Terms,
    pub(super) non_finite: u64,
    pub(super) nan: bool,
    /// The first tensor with something not finite.
    pub(super) first: u32,
}

impl Sum {
    /// Of nothing.
    pub(super) fn nothing(norm: Norm) -> Sum {
        let terms = match norm {
            Norm::One | Norm::Two => Terms::Grid(Grid::default()),
            Norm::Inf => Terms::Largest(0),
            Norm::P(_) => Terms::Powers(Powers::default()),
        };
        Sum { terms, non_finite: 0, nan: false, first: NONE }
    }

    /// Adds another sum. For norm types 1, 2 and infinity the order of such additions changes no bit.
    pub(super) fn merge(&mut self, other: &Sum, norm: Norm) {
        match (&mut self.terms, &other.terms) {
            (Terms::Grid(own), Terms::Grid(other)) => own.merge(other),
            (Terms::Largest(own), Terms::Largest(other)) => *own = (*own).max(*other),
            (Terms::Powers(own), Terms::Powers(other)) => *own = own.merge(*other, norm.p()),
            _ => debug_assert!(false, "sums of two norm types"),
        }
        self.non_finite = self.non_finite.saturating_add(other.non_finite);
        self.nan |= other.nan;
        self.first = self.first.min(other.first);
    }

    /// The same, ready to be one of 2^32 that are merged.
    pub(super) fn carried(self) -> Sum {
        match self.terms {
            Terms::Grid(grid) => Sum { terms: Terms::Grid(grid.carried()), ..self },
            _ => self,
        }
    }

    /// The norm, not below exact by more than the module's bound, and never above it but for any p.
    pub(super) fn norm(&self, norm: Norm) -> Real {
        match self.terms {
            Terms::Grid(grid) => grid_norm(grid, norm).0,
            Terms::Largest(bits) => Real::from_f64(f64::from_bits(bits)),
            Terms::Powers(powers) => powers.norm(norm.p()),
        }
    }

    /// Something that the norm does not exceed, in exact arithmetic; the norm itself where nothing was
    /// dropped.
    pub(super) fn norm_at_most(&self, norm: Norm) -> Real {
        match self.terms {
            Terms::Grid(grid) => {
                let (real, lossy) = grid_norm(grid, norm);
                real.raised(if lossy { SHORT_BY } else { 0 })
            }
            Terms::Largest(_) => self.norm(norm),
            Terms::Powers(powers) => powers.norm_at_most(norm.p()),
        }
    }
}

/// The norm, and whether something was dropped before.
fn grid_norm(grid: Grid, norm: Norm) -> (Real, bool) {
    let (mantissa, exponent, lossy) = grid.value();
    let exponent = exponent + norm.unit();
    let real = match norm {
        Norm::Two => Real::square_root(mantissa, exponent, lossy),
        _ => Real::new(mantissa, exponent, lossy),
    };
    (real, lossy)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against sums in an order of their own, and against a wider integer.
    #[test]
    fn neither_order_nor_grouping_changes_a_bit() {
        let mut state = 5u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 20
        };
        for round in 0..200 {
            let spread = [1, 40, 300, 4000][round % 4];
            let items: Vec<(u128, u32)> = (0..60)
                .map(|_| {
                    let mantissa = (u128::from(next()) << 76 | u128::from(next()) << 32) >> (next() % 120);
                    (mantissa, (next() % spread) as u32)
                })
                .collect();
            let sum = |items: &[(u128, u32)]| {
                let mut grid = Grid::default();
                items.iter().for_each(|&(m, at)| grid.add(m, at, false));
                grid
            };
            let all = sum(&items);
            let mut reversed = items.clone();
            reversed.reverse();
            assert_eq!(all, sum(&reversed));
            let mut parts = Grid::default();
            items.rchunks(7).for_each(|own| parts.merge(&sum(own)));
            assert_eq!(all, parts);
            let mut carried = all.carried();
            assert_eq!(carried.value(), all.value());
            carried.merge(&Grid::default());
            assert_eq!(carried, all.carried());
            if spread <= 40 {
                // 4 digits from the highest on: below 2^-96 of the sum is dropped 60 times.
                let top = items.iter().map(|(m, at)| (128 - m.leading_zeros()) + at).max().unwrap();
                let exact: f64 = items.iter().map(|&(m, at)| m as f64 * 2f64.powi(at as i32)).sum();
                let (mantissa, exponent, _) = all.value();
                let own = mantissa as f64 * 2f64.powi(exponent);
                assert!((own - exact).abs() <= exact * 1e-14, "{own} {exact} {top}");
            }
        }
    }

    #[test]
    fn what_is_dropped_is_known() {
        let mut grid = Grid::default();
        grid.add(1, 0, false);
        grid.add(1, 100, false);
        assert!(!grid.lossy);
        grid.add(1, 128, false);
        assert!(grid.lossy);
        let mut full = Grid::default();
        (0..1000).for_each(|_| full.add(u128::MAX >> 5, 5, false));
        assert!(!full.lossy);
        let (mantissa, exponent, lossy) = full.value();
        assert!(lossy && exponent == 32, "{exponent}");
        // 1000 * (2^128 - 2^5) / 2^32, rounded down.
        assert_eq!(mantissa, (1000 << 96) - 1);
    }
}
