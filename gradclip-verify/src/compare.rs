//! Comparisons that tests share, and their assertions.

use crate::tally::ulp;
use crate::tensor::Element;

/// The Euclidean norm in f64, summed by magnitude: its relative error is below n * 2^-53, and no
/// f32 overflows or underflows it (3.4e38^2 * 1e12 < 1e308, 1e-45^2 > 1e-308).
pub fn norm(tensors: &[Vec<f32>]) -> f64 {
    let mut squares: Vec<f64> = tensors.iter().flatten().map(|&x| f64::from(x) * f64::from(x)).collect();
    squares.sort_by(f64::total_cmp);
    squares.iter().sum::<f64>().sqrt()
}

/// Distance in units of the last place of an f32 of this size, also above `f32::MAX`.
pub fn ulps(value: f64, exact: f64) -> f64 {
    if value == exact { 0.0 } else { (value - exact).abs() / ulp(Element::F32, exact) }
}

/// Bits of all elements, so that -0 and 0 differ and NaN equals itself.
pub fn bits(tensors: &[Vec<f32>]) -> Vec<Vec<u32>> {
    tensors.iter().map(|t| t.iter().map(|x| x.to_bits()).collect()).collect()
}

/// Asserts that gradients were scaled as an f32 multiplication by `coefficient` rounds.
pub fn assert_scaled(before: &[Vec<f32>], after: &[Vec<f32>], coefficient: f32, what: &str) {
    for (t, (b, a)) in before.iter().zip(after).enumerate() {
        assert_eq!(b.len(), a.len(), "{what}: length of t{t}");
        for (i, (&b, &a)) in b.iter().zip(a).enumerate() {
            let want = b * coefficient;
            assert!(a == want, "{what}: t{t}[{i}]: {b:e} * {coefficient:e} gave {a:e}, not {want:e}");
        }
    }
}

/// Relative and absolute, as numpy has them.
pub fn assert_close(own: &[f64], want: &[f64], relative: f64, absolute: f64, what: &str) {
    assert_eq!(own.len(), want.len(), "{what}");
    for (i, (a, b)) in own.iter().zip(want).enumerate() {
        assert!((a - b).abs() <= absolute + relative * b.abs(), "{what}: element {i} is {a:e}, not {b:e}");
    }
}
