//! Norms of `f64` values in big integers.

use num_bigint::BigUint;

/// The magnitude of a finite value in units of 2^-1074.
pub fn units(x: f64) -> BigUint {
    let bits = x.abs().to_bits();
    let field = (bits >> 52).max(1);
    BigUint::from(bits - ((field - 1) << 52)) << (field - 1) as usize
}

/// The sum of magnitudes, or of squares in units of 2^-2148.
pub fn sum(values: impl IntoIterator<Item = f64>, squares: bool) -> BigUint {
    let term = |x| if squares { units(x).pow(2) } else { units(x) };
    values.into_iter().map(term).sum()
}

/// How far a norm is from that of an exact sum times `unscale`, in its own ulp.
pub fn error_in_ulp(norm: f64, sum: &BigUint, squares: bool, unscale: f64) -> f64 {
    // In units of 2^-2212 (2^-1074 of the norm, 2^-1074 of the factor, and 64 bits below), rounded down.
    let by = units(unscale);
    let exact = if squares { ((sum * by.pow(2)) << 128usize).sqrt() } else { (sum * by) << 64usize };
    let own = units(norm) << (1074 + 64usize);
    let distance = if own > exact { own - exact } else { exact - own };
    let ulp = (norm.to_bits() >> 52).max(1) as usize - 1 + 1074 + 64;
    // 40 bits of an ulp are enough, and fit an f64.
    (distance >> (ulp - 40)).to_string().parse::<f64>().unwrap_or(f64::INFINITY) / 2f64.powi(40)
}
