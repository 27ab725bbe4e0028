//! Where a clip promises that the norm of the result is at most C, it is in exact arithmetic: squares are
//! added as integers of 128 bits, which hold them without rounding.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Data, Element, Random, Tensor, budget, gpu, named, on_both, tolerance, traced};
use gradclip::{Clip, ClipError, NormType, Rule, Scope, Units};

/// Values are multiples of 2^-59 below 4: squares of 61 bits each, of which 64 fit.
const GRID: i32 = 59;

fn integer(value: f64) -> u128 {
    let scaled = value.abs() * 2f64.powi(GRID);
    assert!(scaled == scaled.trunc() && scaled < 2f64.powi(61), "{value:e} is not on the grid");
    scaled as u128
}

fn squares(values: impl Iterator<Item = f64>) -> u128 {
    values.map(|v| integer(v).pow(2)).sum()
}

/// Elements from 2^-20 to 2, or 0, as f16 and bf16 have them too.
fn element(random: &mut Random) -> f32 {
    let exponent = (random.bits() % 20) as i32;
    let value = (random.unit().abs() + 1.0) * 2f32.powi(-exponent);
    if random.bits().is_multiple_of(16) { 0.0 } else { value.copysign(random.unit()) }
}

fn threshold(random: &mut Random, norm: f64) -> f32 {
    // Near the norm, equal to it, or as far as a sixteenth of it: also such as no type holds.
    let factor = match random.bits() % 4 {
        0 => 1.0 + f64::from(random.unit()) * 3e-7,
        1 => 1.0,
        _ => 1.0 / (1.0 + 15.0 * f64::from(random.unit().abs())),
    };
    (norm * factor).min(3.9) as f32
}

#[test]
fn norms_of_sets_are_at_most_the_threshold() {
    let mut random = Random(1);
    let (mut clipped, mut least) = (0, f64::INFINITY);
    for turn in 0..budget::EXACT_SETS {
        let len = 1 + random.bits() as usize % 12;
        let set: Vec<f32> = (0..len).map(|_| element(&mut random) / 4.0).collect();
        let data = Data::rounded(Element::ON_DEVICES[turn as usize % 3], &set);
        let values: Vec<f64> = data.values().collect();
        let norm = values.iter().map(|x| x * x).sum::<f64>().sqrt();
        let c = threshold(&mut random, norm);
        let (trace, after) = traced(&named([data]), &Clip::global_norm(c).never_above(true)).unwrap();
        let (report, after) = (trace.report, after[0].data.values().collect::<Vec<f64>>());
        let sum = squares(after.iter().copied());
        assert!(sum <= integer(c.into()).pow(2), "{turn}: {values:?} to {c:e} gave {after:?}");
        clipped += u32::from(report.clipped());
        if turn % 3 == 0 && report.clipped() {
            least = least.min((sum as f64).sqrt() / 2f64.powi(GRID) / f64::from(c));
        }
    }
    assert!(clipped > 50_000, "{clipped}");
    assert!(least > 1.0 - tolerance::SCALED_BELOW, "{least}");
}

/// Rows promise it unless asked otherwise, and sums of rows are what privacy accounting adds up.
#[test]
fn norms_of_rows_are_at_most_the_threshold() {
    const ROWS: usize = 100_000;
    const LEN: usize = 12;
    let mut random = Random(2);
    let rows: Vec<f32> = (0..ROWS * LEN).map(|_| element(&mut random) / 4.0).collect();
    let clip = Clip::per_row_norm(0.1f32);
    let c = integer(f64::from(0.1f32)).pow(2);
    let shape = [ROWS as u64, LEN as u64];
    let gpu = gpu();
    for kind in Element::ON_DEVICES {
        let tensor = Tensor::new("g", Data::rounded(kind, &rows)).shape(&shape);
        let (report, after) = on_both(&gpu, &[tensor], &clip);
        assert!(report.clipped_segments > ROWS as u64 / 2);
        for (i, row) in after[0].data.values().collect::<Vec<_>>().chunks(LEN).enumerate() {
            assert!(squares(row.iter().copied()) <= c, "row {i} of {kind:?}: {row:?}");
        }
    }
    // To nearest, half of them end above.
    let tensor = Tensor::new("g", rows).shape(&shape);
    let (_, near) = traced(&[tensor], &clip.never_above(false)).unwrap();
    let near = near[0].data.floats();
    let above = near.chunks(LEN).filter(|row| squares(row.iter().map(|&x| x.into())) > c).count();
    assert!(above > ROWS / 10, "{above}");
}

/// Other norms, units and rules, with an unscale factor and a total: GPU and CPU to the bit, and the bound.
#[test]
fn every_rule_keeps_its_promise() {
    let gpu = gpu();
    let mut random = Random(3);
    let values: Vec<f32> = (0..60).map(|_| element(&mut random) / 4.0).collect();
    let parameters: Vec<f32> = (0..60).map(|_| element(&mut random) / 4.0).collect();
    // An element is at most half; norms of at most 60 of them.
    let one = |row: &[f32]| row.iter().map(|&x| integer(x.into())).sum::<u128>();
    let largest = |row: &[f32]| row.iter().map(|&x| integer(x.into())).max().unwrap();
    let c = f64::from(0.1f32);
    for unscale in [1.0, 0.3] {
        let never = |clip: Clip| clip.never_above(true).unscale(unscale);
        for clip in [
            never(Clip::per_unit_norm(0.1f32, Units::OutputFirst)),
            never(Clip::per_unit_norm(0.1f32, Units::OutputFirst).norm_type(NormType::One)),
            never(Clip::per_unit_norm(0.1f32, Units::OutputFirst).norm_type(NormType::Inf)),
            never(Clip::block_rms(0.02).scope(Scope::Unit(Units::OutputFirst))),
            never(Clip::normalize(0.1f32).scope(Scope::Unit(Units::OutputFirst))),
            never(Clip::per_unit_norm(5.0, Units::OutputFirst).total(0.1f32)),
            never(Clip::agc(0.25, Units::OutputFirst)),
        ] {
            let tensor = Tensor::new("g", &values).shape(&[6, 10]).parameter(&parameters);
            let after = on_both(&gpu, &[tensor], &clip).1[0].data.floats();
            for (row, parameter) in after.chunks(10).zip(parameters.chunks(10)) {
                let two = squares(row.iter().map(|&x| x.into()));
                let within = match (clip.norm, clip.total, clip.rule) {
                    (NormType::One, ..) => one(row) <= integer(c),
                    (NormType::Inf, ..) => largest(row) <= integer(c),
                    (_, Some(_), _) => squares(after.iter().map(|&x| x.into())) <= integer(c).pow(2),
                    // 0.02^2 * 10, the elements of a unit: both sides in units of the grid.
                    (_, _, Rule::Rms) => two as f64 <= 10.0 * (0.02 * 2f64.powi(GRID)).powi(2),
                    // The parameters' norm is above the least one.
                    (_, _, Rule::Agc { .. }) => two <= squares(parameter.iter().map(|&x| x.into())) / 16,
                    _ => two <= integer(c).pow(2),
                };
                assert!(within, "{clip:?}: {row:?}");
            }
        }
    }
}

/// TRIED T6: values stay within their limit in every type, whatever is asked of norms.
#[test]
fn values_stay_within_their_limit() {
    let gpu = gpu();
    let mut random = Random(4);
    let values: Vec<f32> = (0..4001).map(|_| random.unit() * 2.0).collect();
    let tensors = named(Element::ON_DEVICES.map(|element| Data::rounded(element, &values)));
    for (v, unscale) in [(0.1, 1.0), (0.3, 1.0), (0.3, 0.37), (1e5, 1e5), (0.0, 1.0), (1e-9, 1.0)] {
        let clip = Clip::value(v).unscale(unscale).lossy_unscale(true);
        let limit = f64::from(v as f32);
        for tensor in on_both(&gpu, &tensors, &clip).1 {
            assert!(tensor.data.values().all(|x| x.abs() <= limit && x.is_finite()), "{clip:?}");
        }
    }
}

#[test]
fn norms_that_are_not_exact_promise_nothing() {
    let clip = Clip::global_norm(1.0).norm_type(NormType::P(3.0)).never_above(true);
    assert!(matches!(clip.validate(), Err(ClipError::Combination { what: "never_above", .. })));
    // Rows do without, where their norm is of another p.
    assert!(Clip::per_row_norm(1.0).norm_type(NormType::P(3.0)).validate().is_ok());
}
