//! Norms of `f64` gradients on the CPU path against big integers: how far they are from exact, that neither
//! threads nor order change a bit, and that nothing is above its limit where that is promised.

#![allow(clippy::unwrap_used)]

use gradclip::cpu::{self, GradMut};
use gradclip::{Clip, NormType, Report, Scope, Units};
use gradclip_verify::budget::{EXACT_ELEMENTS, EXACT_SETS_F64};
use gradclip_verify::inputs::Random;
use gradclip_verify::oracle::exact::{error_in_ulp, sum, units};
use gradclip_verify::tolerance::NORM_F64_ULP as BOUND;
use half::{bf16, f16};

fn clip(tensors: &mut [Vec<f64>], clip: &Clip) -> Report {
    let mut grads: Vec<_> = tensors.iter_mut().map(|t| GradMut::f64("g", t)).collect();
    cpu::clip(&mut grads, clip).unwrap()
}

fn norm_of(tensors: &mut [Vec<f64>], norm: NormType, unscale: f64) -> f64 {
    // Element by element to 0 and back would be another test; infinity keeps gradients where unscale is 1.
    clip(tensors, &Clip::measure().norm_type(norm).unscale(unscale)).norm().unwrap()
}

/// Exponent fields: all, subnormals alone, around 1, near the largest, near the smallest, one.
const FIELDS: [(usize, usize); 7] =
    [(0, 2046), (0, 1), (1000, 1040), (1900, 2046), (0, 40), (1020, 1021), (3, 2020)];
const LENGTHS: [usize; 9] = [1, 2, 7, 1023, 1024, 1025, 5000, 16_385, 100_000];

/// Several tensors, one value in some of them far above the others.
fn set(random: &mut Random, len: usize, (from, to): (usize, usize)) -> Vec<Vec<f64>> {
    let tensors = 1 + random.below(3);
    (0..tensors)
        .map(|_| {
            let mut own: Vec<f64> = (0..len).map(|_| random.value_f64(from, to)).collect();
            if random.below(3) == 0 {
                let at = random.below(len);
                own[at] = (own[at] * 2f64.powi(40)).clamp(-1e300, 1e300);
            }
            own
        })
        .collect()
}

#[test]
fn norms_are_within_the_bound_of_exact() {
    let mut random = Random(1);
    let mut worst = 0.0f64;
    for (i, fields) in FIELDS.into_iter().enumerate() {
        for (k, len) in LENGTHS.into_iter().enumerate() {
            // Big integers are slow; the longest sets meet two of the ranges.
            if len > EXACT_ELEMENTS && i % 4 != 0 {
                continue;
            }
            let mut tensors = set(&mut random, len, fields);
            let unscale = [1.0, 0.25, 1.0 / 3.0, 1e-3][(i + k) % 4];
            for norm in [NormType::One, NormType::Two] {
                let squares = norm == NormType::Two;
                let whole = sum(tensors.iter().flatten().copied(), squares);
                let own = norm_of(&mut tensors.clone(), norm, unscale);
                if own == f64::INFINITY {
                    continue;
                }
                let error = error_in_ulp(own, &whole, squares, unscale);
                worst = worst.max(error);
                assert!(error <= BOUND, "{error} ulp: {len} of {fields:?}, {norm:?}, {own:e}");
            }
            let largest = tensors.iter().flatten().fold(0.0f64, |m, x| m.max(x.abs()));
            assert_eq!(norm_of(&mut tensors, NormType::Inf, 1.0), largest);
        }
    }
    // The comparison sees fractions of an ulp.
    assert!(worst > 0.4, "{worst}");
}

/// Of which some widen to f64, and one shares no exponent with the others.
#[test]
fn sets_of_several_types_are_measured_in_f64() {
    let mut random = Random(2);
    let mut double: Vec<f64> = (0..3000).map(|_| random.value_f64(1015, 1024)).collect();
    let mut single: Vec<f32> = (0..3000).map(|_| random.unit_f64() as f32).collect();
    let mut half: Vec<f16> = (0..3000).map(|_| f16::from_f64(random.unit_f64() * 1e-5)).collect();
    let mut brain: Vec<bf16> = (0..3000).map(|_| bf16::from_f64(random.unit_f64())).collect();
    let all = double.iter().copied().chain(single.iter().map(|&x| x.into()));
    let all = all.chain(half.iter().map(|x| x.to_f64())).chain(brain.iter().map(|x| x.to_f64()));
    let whole = sum(all, true);
    let mut grads = [
        GradMut::f16("half", &mut half),
        GradMut::new("single", &mut single),
        GradMut::f64("double", &mut double),
        GradMut::bf16("brain", &mut brain),
    ];
    let norm = cpu::clip(&mut grads, &Clip::measure()).unwrap().norm().unwrap();
    assert!(error_in_ulp(norm, &whole, true, 1.0) <= BOUND);
}

/// Everything that a clip leaves, as bits.
fn bits_of(tensors: &[Vec<f64>], how: &Clip, threads: usize) -> (Vec<Vec<u64>>, Vec<u64>) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| {
        let mut own = tensors.to_vec();
        let shape = |t: &Vec<f64>| {
            if t.len().is_multiple_of(8) { [8, t.len() as u64 / 8] } else { [1, t.len() as u64] }
        };
        let shapes: Vec<_> = own.iter().map(shape).collect();
        let mut grads: Vec<_> =
            own.iter_mut().zip(&shapes).map(|(t, s)| GradMut::f64("g", t).shape(s)).collect();
        let report = cpu::clip(&mut grads, how).unwrap();
        let norms = report.tensors.iter().map(|t| t.norm.to_bits());
        let segments = report.segments.iter().flat_map(|s| [s.norm.to_bits(), s.coefficient.to_bits()]);
        let numbers = norms.chain(segments).collect();
        (own.iter().map(|t| t.iter().map(|x| x.to_bits()).collect()).collect(), numbers)
    })
}

#[test]
fn neither_threads_nor_order_change_a_bit() {
    let mut random = Random(3);
    let lengths = [300_000, 8, 1024, 8 * 4097, 200_000, 16];
    let tensors: Vec<Vec<f64>> =
        lengths.into_iter().map(|len| (0..len).map(|_| random.value_f64(500, 1100)).collect()).collect();
    let units = Units::OutputFirst;
    let columns = Units::over(&[0]);
    for how in [
        Clip::global_norm(1e-3),
        Clip::global_norm(1e-3).norm_type(NormType::One),
        Clip::global_norm(1e-3).norm_type(NormType::Inf),
        Clip::global_norm(1e-3).norm_type(NormType::P(3.5)),
        Clip::per_tensor_norm(1e-3).total(1e-4),
        Clip::per_unit_norm(1e-3, units).total(1e-4),
        Clip::per_unit_norm(1e-3, columns),
        Clip::per_row_norm(1e-3),
        Clip::global_norm(1e-3).never_above(true),
    ] {
        let rows = how.scope == Scope::Row;
        let own: Vec<_> = tensors.iter().filter(|t| !rows || t.len() % 8 == 0).cloned().collect();
        let one = bits_of(&own, &how, 1);
        for threads in [2, 5] {
            assert_eq!(bits_of(&own, &how, threads), one, "{threads} threads, {how:?}");
        }
        // Sums of any p are in the order of the tensors, and so of their last bits.
        if let NormType::P(_) = how.norm {
            continue;
        }
        let reversed: Vec<_> = own.iter().rev().cloned().collect();
        let (values, _) = bits_of(&reversed, &how, 2);
        assert_eq!(values, one.0.iter().rev().cloned().collect::<Vec<_>>(), "{how:?}");
    }
}

/// A set's squares against C^2, or its magnitudes against C, exactly.
fn is_within(values: impl IntoIterator<Item = f64>, threshold: f64, squares: bool) -> bool {
    let limit = if squares { units(threshold).pow(2) } else { units(threshold) };
    sum(values, squares) <= limit
}

#[test]
fn never_above_is_meant_exactly() {
    let mut random = Random(4);
    let (mut unchanged, mut equal) = (0, 0);
    for round in 0..EXACT_SETS_F64 {
        let len = 1 + random.below(40);
        let spread = 1 + random.below(60);
        let middle = 400 + random.below(1200);
        let mut g: Vec<f64> = (0..len).map(|_| random.value_f64(middle, middle + spread)).collect();
        let norm = if round % 3 == 0 { NormType::One } else { NormType::Two };
        let squares = norm == NormType::Two;
        let plain = norm_of(&mut [g.clone()], norm, 1.0);
        // Around the norm itself, at its last bits, and anywhere below.
        let threshold = match round % 5 {
            0 => plain,
            1 => plain.next_down(),
            2 => plain.next_up(),
            3 => plain * (0.5 + 0.5 * random.unit_f64().abs()),
            _ => plain * random.unit_f64().abs().max(1e-9),
        };
        let unscale = if round % 7 < 4 { 1.0 } else { 0.3 + random.unit_f64().abs() };
        let how = Clip::global_norm(threshold).norm_type(norm).unscale(unscale).never_above(true);
        let before = g.clone();
        let report = clip(std::slice::from_mut(&mut g), &how);
        assert!(is_within(g.iter().copied(), threshold, squares), "{round}: {threshold:e}");
        unchanged += u32::from(g == before);
        if unscale == 1.0 && g == before {
            assert!(is_within(before.iter().copied(), threshold, squares));
        }
        if report.clipped() && unscale == 1.0 {
            // Not further below than the roundings: each product less than 2^-52, norm and coefficient less.
            let least = threshold * (1.0 - 2f64.powi(-50));
            assert!(!is_within(g.iter().copied(), least, squares), "{round}");
            equal += 1;
        }
    }
    assert!(unchanged > 500 && equal > 2000, "{unchanged} {equal}");
}

/// The same where nearest rounding would not: so the property above can fail.
#[test]
fn nearest_rounding_is_above_now_and_then() {
    let mut random = Random(5);
    let above = (0..1000)
        .filter(|_| {
            let mut g: Vec<f64> = (0..20).map(|_| random.value_f64(1000, 1024)).collect();
            clip(std::slice::from_mut(&mut g), &Clip::global_norm(0.1));
            !is_within(g, 0.1, true)
        })
        .count();
    assert!(above > 200, "{above}");
}

/// Rows are never above unless asked otherwise, nor are narrow elements of such a set; nor totals and limits
/// that are not the threshold itself.
#[test]
fn never_above_in_rows_types_and_rules() {
    let mut random = Random(6);
    for round in 0..1000 {
        let mut double: Vec<f64> = (0..12).map(|_| random.unit_f64()).collect();
        let mut single: Vec<f32> = (0..8).map(|_| random.unit_f64() as f32).collect();
        let mut brain: Vec<bf16> = (0..20).map(|_| bf16::from_f64(random.unit_f64())).collect();
        let mut half: Vec<f16> = (0..4).map(|_| f16::from_f64(random.unit_f64())).collect();
        let mut grads = [
            GradMut::f64("double", &mut double).shape(&[4, 3]),
            GradMut::new("single", &mut single).shape(&[4, 2]),
            GradMut::bf16("brain", &mut brain).shape(&[4, 5]),
            GradMut::f16("half", &mut half).shape(&[4]),
        ];
        cpu::clip(&mut grads, &Clip::per_row_norm(0.7)).unwrap();
        for row in 0..4 {
            let own = double[3 * row..][..3]
                .iter()
                .copied()
                .chain(single[2 * row..][..2].iter().map(|&x| x.into()));
            let own = own.chain(brain[5 * row..][..5].iter().map(|x| x.to_f64())).chain([half[row].to_f64()]);
            assert!(is_within(own, 0.7, true), "{round} {row}");
        }
        // The root mean square of 12 elements, and the sum of all.
        let mut g: Vec<f64> = (0..12).map(|_| random.unit_f64()).collect();
        let rms = Clip::block_rms(0.3).total(0.9).never_above(true);
        clip(std::slice::from_mut(&mut g), &rms);
        let squares = sum(g.iter().copied(), true);
        assert!(squares <= units(0.3).pow(2) * 12u32 && squares <= units(0.9).pow(2), "{round}");
        let mut g: Vec<f64> = (0..12).map(|_| random.unit_f64()).collect();
        clip(std::slice::from_mut(&mut g), &Clip::normalize(5.0).never_above(true));
        assert!(is_within(g, 5.0, true), "{round}");
    }
}

/// A norm that is exact and equal to C is not above it.
#[test]
fn exact_norms_at_the_threshold_keep_every_bit() {
    for (g, c) in [(vec![3.0, 4.0], 5.0), (vec![3e-320, 4e-320], 5e-320), (vec![6e200, -8e200], 1e201)] {
        let exact = sum(g.iter().copied(), true) == units(c).pow(2);
        for never_above in [false, true] {
            let mut own = [g.clone()];
            clip(&mut own, &Clip::global_norm(c).never_above(never_above));
            assert!(own[0] == g || (never_above && !exact), "{g:?} {c}");
        }
    }
    let mut one = [vec![0.1; 1]];
    clip(&mut one, &Clip::global_norm(0.1).norm_type(NormType::One).never_above(true));
    assert_eq!(one[0], [0.1]);
}
