//! Comparisons that tests share, and their assertions.

use gradclip::NormType;

use crate::oracle::plain;
use crate::tally::ulp;
use crate::tensor::{Element, Tensor};

/// The Euclidean norm in f64, summed by magnitude: its relative error is below n * 2^-53, and no
/// f32 overflows or underflows it (3.4e38^2 * 1e12 < 1e308, 1e-45^2 > 1e-308).
pub fn norm(tensors: &[Vec<f32>]) -> f64 {
    norm_as(tensors, NormType::Two)
}

/// Any norm likewise: terms are added by their magnitude.
pub fn norm_as(tensors: &[Vec<f32>], kind: NormType) -> f64 {
    let mut magnitudes: Vec<f64> = tensors.iter().flatten().map(|&x| f64::from(x).abs()).collect();
    magnitudes.sort_by(f64::total_cmp);
    match kind {
        // Powers of what is at most 1.
        NormType::P(p) if p.is_finite() => {
            let largest = magnitudes.last().copied().filter(|&x| x > 0.0).unwrap_or(1.0);
            largest * plain::norm(magnitudes.iter().map(|x| x / largest), NormType::P(p))
        }
        kind => plain::norm(magnitudes.into_iter(), kind),
    }
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

/// Whether a number is within a share of another and an absolute error. NaN is near NaN.
pub fn is_close(own: f64, want: f64, relative: f64, absolute: f64) -> bool {
    let same = own == want || (own.is_nan() && want.is_nan());
    same || (own - want).abs() <= absolute + relative * want.abs()
}

/// Relative and absolute, as numpy has them. What is not finite has to be the same.
pub fn assert_close(
    own: impl IntoIterator<Item = impl Into<f64>>,
    want: impl IntoIterator<Item = impl Into<f64>>,
    relative: f64,
    absolute: f64,
    what: &str,
) {
    let (own, want): (Vec<f64>, Vec<f64>) =
        (own.into_iter().map(Into::into).collect(), want.into_iter().map(Into::into).collect());
    assert_eq!(own.len(), want.len(), "{what}");
    for (i, (own, want)) in own.iter().zip(&want).enumerate() {
        let close = is_close(*own, *want, relative, absolute);
        assert!(close, "{what}: element {i} is {own:e}, not {want:e}");
    }
}

/// Tensors beside what a plain program made of them.
pub fn assert_all_close(own: &[Tensor], want: &[Vec<f64>], relative: f64, what: &str) {
    assert_eq!(own.len(), want.len(), "{what}");
    for (own, want) in own.iter().zip(want) {
        // Of a subnormal, one step.
        assert_close(
            own.data.values(),
            want.iter().copied(),
            relative,
            1.5e-45,
            &format!("{what}: {}", own.name),
        );
    }
}

/// Asserts that tensors have the same bits; where `nan` says so, any NaN is like any other.
pub fn assert_same(own: &[crate::tensor::Data], want: &[Tensor], nan: bool, what: &str) {
    assert_eq!(own.len(), want.len(), "{what}");
    for (own, want) in own.iter().zip(want).filter(|(own, want)| own.bytes() != want.data.bytes()) {
        let (data, name) = (&want.data, &want.name);
        assert_eq!((own.element(), own.len()), (data.element(), data.len()), "{what}: {name}");
        for i in 0..data.len() {
            let both = nan && own.value(i).is_nan() && data.value(i).is_nan();
            let (a, b) = (own.value(i), data.value(i));
            assert!(both || own.bits(i) == data.bits(i), "{what}: {name}[{i}] is {a:e}, not {b:e}");
        }
    }
}
