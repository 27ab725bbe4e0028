//! Norms before they are rounded, against big integers; `tests/double_norms.rs` has the rest.

use num_bigint::BigUint;

use super::*;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 ^ (self.0 >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// The norm and sum in units of 2^-1074, the latter squared for L2.
fn exact(values: &[f64], two: bool) -> BigUint {
    let term = |&x: &f64| {
        let (mantissa, exponent) = real::parts(x.abs().to_bits());
        let whole = BigUint::from(mantissa) << (exponent + 1074) as usize;
        if two { &whole * &whole } else { whole }
    };
    values.iter().map(term).sum()
}

/// The norm before any rounding but the root's is not above exact, and what it is raised to not below. One
/// large element and 1,023 that each lose almost a unit: the most that a block can lose.
#[test]
fn norms_before_rounding_enclose_exact() {
    let (mut below, mut random) = (0, Random(17));
    for round in 0..200 {
        let down = 2f64.powi(-10 - round % 12);
        let values: Vec<f64> = (0..1024)
            .map(|i| match i {
                0 => 1.0 + (random.next() >> 12) as f64 * f64::EPSILON,
                _ => (2f64.next_down() - (random.next() & 7) as f64 * f64::EPSILON) * down,
            })
            .collect();
        for (two, norm) in [(false, norm::Norm::One), (true, norm::Norm::Two)] {
            let sum = measure::sum_of(Values::F64(&values), norm);
            let whole = exact(&values, two) << if two { 128usize } else { 64 };
            // In units of 2^-1138, below which neither has bits.
            let units = |r: real::Real| BigUint::from(r.mantissa) << (r.exponent + 1138) as usize;
            let powered = |x: BigUint| if two { &x * &x } else { x };
            let (low, high) = (sum.norm(norm), sum.norm_at_most(norm));
            assert!(powered(units(low)) <= whole, "{round} {norm:?}");
            assert!(powered(units(high)) >= whole, "{round} {norm:?}");
            // Where the sticky bit alone would not do.
            below += u32::from(powered(units(low.raised(0))) < whole);
        }
    }
    assert!(below > 20, "{below}");
}
