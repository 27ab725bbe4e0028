//! Where a clip promises that the norm of the result is at most C, it is in exact arithmetic: squares are
//! added as integers of 128 bits, which hold them without rounding.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Random, gpu};
use gradclip::cpu::{self, GradMut};
use gradclip::{Clip, ClipError, DType, Grad, NormType, Scope, Units};
use half::{bf16, f16};

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
    for turn in 0..100_000u32 {
        let len = 1 + random.bits() as usize % 12;
        let set: Vec<f32> = (0..len).map(|_| element(&mut random) / 4.0).collect();
        let (h, b): (Vec<f16>, Vec<bf16>) =
            set.iter().map(|&x| (f16::from_f32(x), bf16::from_f32(x))).unzip();
        let values: Vec<f64> = match turn % 3 {
            0 => set.iter().map(|&x| x.into()).collect(),
            1 => h.iter().map(|&x| x.into()).collect(),
            _ => b.iter().map(|&x| x.into()).collect(),
        };
        let norm = values.iter().map(|x| x * x).sum::<f64>().sqrt();
        let c = threshold(&mut random, norm);
        let clip = Clip::global_norm(c).never_above(true);
        let (mut f, mut h, mut b) = (set, h, b);
        let mut grad = match turn % 3 {
            0 => GradMut::new("g", &mut f),
            1 => GradMut::f16("g", &mut h),
            _ => GradMut::bf16("g", &mut b),
        };
        let report = cpu::clip(std::slice::from_mut(&mut grad), &clip).unwrap();
        let after: Vec<f64> = match turn % 3 {
            0 => f.iter().map(|&x| x.into()).collect(),
            1 => h.iter().map(|&x| x.into()).collect(),
            _ => b.iter().map(|&x| x.into()).collect(),
        };
        let sum = squares(after.iter().copied());
        assert!(sum <= integer(c.into()).pow(2), "{turn}: {values:?} to {c:e} gave {after:?}");
        clipped += u32::from(report.clipped());
        if turn % 3 == 0 && report.clipped() {
            least = least.min((sum as f64).sqrt() / 2f64.powi(GRID) / f64::from(c));
        }
    }
    assert!(clipped > 50_000, "{clipped}");
    // Norm, coefficient, scale and products are each rounded by at most 2^-23, the norm enlarged by 2^-26.
    assert!(least > 1.0 - 5e-7, "{least}");
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
    let at_most = |after: &[f64], what: &str| {
        for (i, row) in after.chunks(LEN).enumerate() {
            assert!(squares(row.iter().copied()) <= c, "row {i} of {what}: {row:?}");
        }
    };
    let shape = [ROWS as u64, LEN as u64];
    let mut f = rows.clone();
    let report = cpu::clip(&mut [GradMut::new("f", &mut f).shape(&shape)], &clip).unwrap();
    assert!(report.clipped_segments > ROWS as u64 / 2);
    at_most(&f.iter().map(|&x| x.into()).collect::<Vec<_>>(), "f32");
    let mut h: Vec<f16> = rows.iter().map(|&x| f16::from_f32(x)).collect();
    cpu::clip(&mut [GradMut::f16("h", &mut h).shape(&shape)], &clip).unwrap();
    at_most(&h.iter().map(|&x| x.into()).collect::<Vec<_>>(), "f16");
    let mut b: Vec<bf16> = rows.iter().map(|&x| bf16::from_f32(x)).collect();
    cpu::clip(&mut [GradMut::bf16("b", &mut b).shape(&shape)], &clip).unwrap();
    at_most(&b.iter().map(|&x| x.into()).collect::<Vec<_>>(), "bf16");

    // To nearest, half of them end above.
    let mut near = rows.clone();
    cpu::clip(&mut [GradMut::new("f", &mut near).shape(&shape)], &clip.never_above(false)).unwrap();
    let above = near.chunks(LEN).filter(|row| squares(row.iter().map(|&x| x.into())) > c).count();
    assert!(above > ROWS / 10, "{above}");

    let Some(gpu) = gpu() else { return };
    for (bytes, after, dtype) in [
        (bytemuck::cast_slice::<_, u8>(&rows).to_vec(), bytemuck::cast_slice::<_, u8>(&f), DType::F32),
        (
            rows.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect(),
            bytemuck::cast_slice(&h),
            DType::F16,
        ),
        (
            rows.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect(),
            bytemuck::cast_slice(&b),
            DType::Bf16,
        ),
    ] {
        let buffer = gpu.buffer(&bytes);
        let grad = Grad::new("g", &buffer).dtype(dtype).shape(&shape);
        gpu.run(&gpu.clipper.prepare(&[grad], &clip).unwrap());
        assert!(gpu.read::<u8>(&buffer) == after, "{dtype} on {}", gpu.name);
    }
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
            let mut after = values.clone();
            let grad = GradMut::new("g", &mut after).shape(&[6, 10]).parameter(&parameters[..]);
            cpu::clip(&mut [grad], &clip).unwrap();
            for (row, parameter) in after.chunks(10).zip(parameters.chunks(10)) {
                let two = squares(row.iter().map(|&x| x.into()));
                let within = match (clip.norm, clip.total, clip.rule) {
                    (NormType::One, ..) => one(row) <= integer(c),
                    (NormType::Inf, ..) => largest(row) <= integer(c),
                    (_, Some(_), _) => squares(after.iter().map(|&x| x.into())) <= integer(c).pow(2),
                    // 0.02^2 * 10, the elements of a unit: both sides in units of the grid.
                    (_, _, gradclip::Rule::Rms) => two as f64 <= 10.0 * (0.02 * 2f64.powi(GRID)).powi(2),
                    // The parameters' norm is above the least one.
                    (_, _, gradclip::Rule::Agc { .. }) => {
                        two <= squares(parameter.iter().map(|&x| x.into())) / 16
                    }
                    _ => two <= integer(c).pow(2),
                };
                assert!(within, "{clip:?}: {row:?}");
            }
            let Some(gpu) = &gpu else { continue };
            let buffers = [&values, &parameters].map(|v| gpu.buffer(bytemuck::cast_slice(v)));
            let grad = Grad::new("g", &buffers[0]).shape(&[6, 10]).parameter(&buffers[1], 0, DType::F32);
            gpu.run(&gpu.clipper.prepare(&[grad], &clip).unwrap());
            assert_eq!(gpu.read::<u32>(&buffers[0]), bytemuck::cast_slice::<_, u32>(&after), "{clip:?}");
        }
    }
}

/// TRIED T6: values stay within their limit in every type, whatever is asked of norms.
#[test]
fn values_stay_within_their_limit() {
    let gpu = gpu();
    let mut random = Random(4);
    let values: Vec<f32> = (0..4001).map(|_| random.unit() * 2.0).collect();
    let h: Vec<f16> = values.iter().map(|&x| f16::from_f32(x)).collect();
    let b: Vec<bf16> = values.iter().map(|&x| bf16::from_f32(x)).collect();
    for (v, unscale) in [(0.1, 1.0), (0.3, 1.0), (0.3, 0.37), (1e5, 1e5), (0.0, 1.0), (1e-9, 1.0)] {
        let clip = Clip::value(v).unscale(unscale).lossy_unscale(true);
        let limit = f64::from(v as f32);
        let (mut f, mut h, mut b) = (values.clone(), h.clone(), b.clone());
        let before: [Vec<u8>; 3] = [
            bytemuck::cast_slice(&f).to_vec(),
            bytemuck::cast_slice(&h).to_vec(),
            bytemuck::cast_slice(&b).to_vec(),
        ];
        let grads = [GradMut::new("f", &mut f), GradMut::f16("h", &mut h), GradMut::bf16("b", &mut b)];
        cpu::clip(&mut { grads }, &clip).unwrap();
        assert!(f.iter().all(|&x| f64::from(x).abs() <= limit), "{clip:?}");
        assert!(h.iter().all(|&x| f64::from(x).abs() <= limit && x.is_finite()), "{clip:?}");
        assert!(b.iter().all(|&x| f64::from(x).abs() <= limit), "{clip:?}");
        let Some(gpu) = &gpu else { continue };
        let after = [bytemuck::cast_slice::<_, u8>(&f), bytemuck::cast_slice(&h), bytemuck::cast_slice(&b)];
        for ((before, after), dtype) in before.iter().zip(after).zip([DType::F32, DType::F16, DType::Bf16]) {
            let buffer = gpu.buffer(before);
            let elements = before.len() as u64 / dtype.size();
            let grad = Grad::range("g", &buffer, 0, elements).dtype(dtype);
            gpu.run(&gpu.clipper.prepare(&[grad], &clip).unwrap());
            assert!(gpu.read::<u8>(&buffer)[..after.len()] == *after, "{clip:?}, {dtype} on {}", gpu.name);
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
