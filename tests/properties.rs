//! What holds of every clip, for random gradients over the whole range of f32, on the CPU path;
//! tests/equality.rs carries it to the GPU.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::tolerance::{HALF_ULP, TWICE_ROUNDED};
use common::{NORMS, Random, on_cpu as clip};
use gradclip::{Clip, NonFinite, NormType};
use proptest::prelude::*;

/// Finite, normal or zero, with exponents in the given range.
fn element(exponents: std::ops::Range<u32>) -> impl Strategy<Value = f32> {
    prop_oneof![
        1 => Just(0.0f32),
        9 => (exponents, any::<u32>(), any::<bool>()).prop_map(|(e, m, negative)| {
            let sign = u32::from(negative) << 31;
            f32::from_bits(sign | (e << 23) | (m & 0x7f_ffff))
        }),
    ]
}

fn tensors(exponents: std::ops::Range<u32>) -> impl Strategy<Value = Vec<Vec<f32>>> {
    prop::collection::vec(prop::collection::vec(element(exponents), 0..300), 1..8)
}

fn norms() -> impl Strategy<Value = NormType> {
    prop::sample::select(NORMS.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(common::budget::PROPERTY_CASES))]

    /// The norm afterwards is the threshold within four roundings: 1.3 of the reported norm, one of the
    /// coefficient, one of the products, and rounding up. Where products are subnormal their error is
    /// absolute, so exponents stay far from there.
    #[test]
    fn never_above_the_threshold(set in tensors(90..170), norm in norms(), part in 0.01f32..0.99) {
        let measured = clip(&set, &Clip::measure().norm_type(norm)).0.norm().unwrap();
        let threshold = measured as f32 * part;
        let (report, after) = clip(&set, &Clip::global_norm(threshold).norm_type(norm));
        prop_assert_eq!(report.clipped(), measured > 0.0);
        let now = clip(&after, &Clip::measure().norm_type(norm)).0.norm().unwrap();
        prop_assert!(now <= f64::from(threshold) * (1.0 + 2.0 * TWICE_ROUNDED), "{now:e} > {threshold:e}");
        // Clipping again moves nothing by more than those roundings.
        let (_, again) = clip(&after, &Clip::global_norm(threshold).norm_type(norm));
        for (a, b) in after.iter().flatten().zip(again.iter().flatten()) {
            prop_assert!((f64::from(*a) - f64::from(*b)).abs() <= 3.0 * TWICE_ROUNDED * f64::from(a.abs()));
        }
    }

    #[test]
    fn the_direction_is_kept(set in tensors(90..170), part in 0.01f32..0.99) {
        let measured = clip(&set, &Clip::measure()).0.norm().unwrap();
        let (report, after) = clip(&set, &Clip::global_norm(measured as f32 * part));
        let coefficient = report.coefficient().unwrap();
        for (b, a) in set.iter().flatten().zip(after.iter().flatten()) {
            prop_assert_eq!(b.is_sign_negative(), a.is_sign_negative());
            let want = f64::from(*b) * coefficient;
            prop_assert!((f64::from(*a) - want).abs() <= HALF_ULP * want.abs());
        }
    }

    #[test]
    fn powers_of_two_scale_everything_to_the_bit(
        set in tensors(90..130), norm in norms(), part in 0.01f32..2.0, power in -40i32..40,
    ) {
        let factor = 2f32.powi(power);
        let threshold = clip(&set, &Clip::measure()).0.norm().unwrap() as f32 * part;
        let scaled: Vec<Vec<f32>> = set.iter().map(|t| t.iter().map(|x| x * factor).collect()).collect();
        let (report, after) = clip(&set, &Clip::global_norm(threshold).norm_type(norm));
        let (scaled_report, scaled_after) = clip(&scaled, &Clip::global_norm(threshold * factor).norm_type(norm));
        prop_assert_eq!(report.coefficient(), scaled_report.coefficient());
        prop_assert_eq!(report.norm().unwrap() * f64::from(factor), scaled_report.norm().unwrap());
        let expected: Vec<Vec<f32>> = after.iter().map(|t| t.iter().map(|x| x * factor).collect()).collect();
        prop_assert_eq!(&expected, &scaled_after);
        // Unscaling by the power is the same thing.
        let unscaled = Clip::global_norm(threshold).norm_type(norm).unscale(1.0 / factor);
        let (unscaled_report, unscaled_after) = clip(&scaled, &unscaled);
        prop_assert_eq!(unscaled_report.norm(), report.norm());
        prop_assert_eq!(unscaled_after, after);
    }

    #[test]
    fn sanitizing_is_clipping_with_zeros(
        set in tensors(0..254), norm in norms(), threshold in 1e-30f32..1e30,
        bad in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0u32..4), 1..6),
    ) {
        let (mut spoilt, mut zeroed) = (set.clone(), set);
        let mut count = std::collections::HashSet::new();
        for (t, i, which) in bad {
            let t = t.index(spoilt.len());
            if spoilt[t].is_empty() {
                continue;
            }
            let i = i.index(spoilt[t].len());
            let value = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::from_bits(0xff80_0001)];
            spoilt[t][i] = value[which as usize];
            zeroed[t][i] = 0.0;
            count.insert((t, i));
        }
        let settings = Clip::global_norm(threshold).norm_type(norm).on_non_finite(NonFinite::Sanitize);
        let (report, after) = clip(&spoilt, &settings);
        let (plain, expected) = clip(&zeroed, &settings);
        prop_assert_eq!(report.norm(), plain.norm());
        prop_assert_eq!(report.coefficient(), plain.coefficient());
        prop_assert_eq!(report.non_finite(), count.len() as u64);
        prop_assert_eq!(common::bits(&after), common::bits(&expected));
    }

    #[test]
    fn order_is_irrelevant_to_the_last_bit(
        set in tensors(0..254), norm in norms(), seed in any::<u64>(),
    ) {
        let first = clip(&set, &Clip::measure().norm_type(norm)).0.norm();
        let mut shuffled = set;
        Random(seed).shuffle(&mut shuffled);
        prop_assert_eq!(clip(&shuffled, &Clip::measure().norm_type(norm)).0.norm(), first);
    }
}
