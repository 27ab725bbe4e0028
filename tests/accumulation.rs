//! Sums of micro-batches: as they are and clipped one by one, against f64, GPU against CPU.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Kind, contents, data, gpu};
use gradclip::cpu::{self, GradMut, SumMut};
use gradclip::{
    Clip, ClipError, DType, Grad, Group, History, NonFinite, PlanError, PrepareError, Scope, Units,
};
use half::{bf16, f16};

const SIZES: [usize; 4] = [3, 20_001, 1, 700];
const BATCHES: usize = 5;

fn micro(batch: usize) -> Vec<Vec<f32>> {
    SIZES.iter().zip(batch as u64 * 10..).map(|(&n, seed)| data(Kind::Uniform(1.0), n, seed)).collect()
}

/// Adds a micro-batch that was put where it is, to plain sums or to clipped ones.
macro_rules! record {
    ($gpu:expr, $accumulator:expr, $batch:expr) => {{
        let mut encoder = $gpu.device.create_command_encoder(&Default::default());
        match $batch {
            0 => $accumulator.record_first(&mut encoder),
            _ => $accumulator.record_next(&mut encoder),
        }
        $gpu.queue.submit([encoder.finish()]);
    }};
}

/// Bytes of a micro-batch in a type, and the values that they are.
fn stored(values: &[f32], dtype: DType) -> (Vec<u8>, Vec<f32>) {
    match dtype {
        DType::F16 => {
            let short: Vec<f16> = values.iter().map(|&x| f16::from_f32(x)).collect();
            (bytemuck::cast_slice(&short).to_vec(), short.iter().map(|x| x.to_f32()).collect())
        }
        DType::Bf16 => {
            let short: Vec<bf16> = values.iter().map(|&x| bf16::from_f32(x)).collect();
            (bytemuck::cast_slice(&short).to_vec(), short.iter().map(|x| x.to_f32()).collect())
        }
        _ => (bytemuck::cast_slice(values).to_vec(), values.to_vec()),
    }
}

/// f32 sums of at most five numbers below 1: four roundings of values below 5.
const SUM_ERROR: f64 = 4.0 * 5.0 * f32::EPSILON as f64 / 2.0;

#[test]
fn sums_of_every_type_begin_anew() {
    let gpu = gpu();
    for dtype in [DType::F32, DType::F16, DType::Bf16] {
        let n = 20_001;
        // What was there before does not matter.
        let mut on_host = vec![f32::NAN; n];
        let mut want = vec![0.0f64; n];
        let there = gpu.as_ref().map(|gpu| {
            let sum = gpu.buffer(bytemuck::cast_slice(&vec![f32::NAN; n + 3]));
            // Halves in the middle of a word, sums at an odd place.
            let lead = if dtype == DType::F32 { 4 } else { 2 };
            let grads = gpu.placed(4 * n + 8, &[(lead, stored(&vec![0.0; n], dtype).0, dtype)]);
            let grads: Vec<Grad> = grads.into_iter().map(|g| g.accumulator(&sum, 4)).collect();
            (gpu.clipper.prepare_accumulation(&grads).unwrap(), grads, sum, lead)
        });
        for batch in 0..BATCHES {
            let (bytes, values) = stored(&data(Kind::Uniform(1.0), n, batch as u64), dtype);
            values.iter().zip(&mut want).for_each(|(v, w)| *w += f64::from(*v));
            let (short, brain): (&[f16], &[bf16]) = match dtype {
                DType::F32 => (&[], &[]),
                _ => (bytemuck::cast_slice(&bytes), bytemuck::cast_slice(&bytes)),
            };
            let sum = match dtype {
                DType::F32 => SumMut::new("t", &values[..], &mut on_host),
                DType::F16 => SumMut::new("t", short, &mut on_host),
                _ => SumMut::new("t", brain, &mut on_host),
            };
            cpu::accumulate(&mut [sum], batch == 0).unwrap();
            if let (Some(gpu), Some((accumulator, grads, _, lead))) = (&gpu, &there) {
                let mut all = gpu.read::<u8>(grads[0].buffer());
                all[*lead..*lead + bytes.len()].copy_from_slice(&bytes);
                gpu.queue.write_buffer(grads[0].buffer(), 0, &all);
                record!(gpu, accumulator, batch);
                assert!(gpu.read::<u8>(grads[0].buffer()) == all, "gradients are only read");
            }
        }
        assert!(on_host.iter().zip(&want).all(|(g, w)| (f64::from(*g) - w).abs() <= SUM_ERROR), "{dtype}");
        if let (Some(gpu), Some((_, _, sum, _))) = (&gpu, &there) {
            let got: Vec<f32> = gpu.read(sum);
            assert!(got[1..=n] == on_host, "{dtype} on {}", gpu.name);
            assert!(got[0].is_nan() && got[n + 1].is_nan(), "wrote beside the sums");
        }
    }
}

/// The mean of all, clipped once: no clearing, no division.
#[test]
fn accumulate_then_clip() {
    let gpu = gpu();
    let mut mean: Vec<Vec<f64>> = SIZES.iter().map(|&n| vec![0.0; n]).collect();
    for batch in 0..BATCHES {
        let pairs = mean.iter_mut().flatten().zip(micro(batch).into_iter().flatten());
        pairs.for_each(|(m, g)| *m += f64::from(g) / BATCHES as f64);
    }
    let norm = mean.iter().flatten().map(|m| m * m).sum::<f64>().sqrt();
    let clip = Clip::global_norm(1.0).unscale(1.0 / BATCHES as f32);
    let right = |got: &[Vec<f32>], what: &str| {
        for (g, m) in got.iter().flatten().zip(mean.iter().flatten()) {
            let want = m / norm;
            let bound = (SUM_ERROR / BATCHES as f64) / norm + want.abs() * 4e-7;
            assert!((f64::from(*g) - want).abs() <= bound, "{what}: {g} {want}");
        }
    };
    let mut sums: Vec<Vec<f32>> = SIZES.iter().map(|&n| vec![f32::NAN; n]).collect();
    for batch in 0..BATCHES {
        let gradients = micro(batch);
        let mut pairs: Vec<_> =
            sums.iter_mut().zip(&gradients).map(|(s, g)| SumMut::new("t", &g[..], s)).collect();
        cpu::accumulate(&mut pairs, batch == 0).unwrap();
    }
    let mut grads: Vec<_> = sums.iter_mut().map(|s| GradMut::new("t", s)).collect();
    cpu::clip(&mut grads, &clip).unwrap();
    right(&sums, "CPU");
    let Some(gpu) = gpu else { return };
    let there = gpu.separate(&sums);
    let grads: Vec<Grad> =
        gpu.separate(&micro(0)).into_iter().zip(&there).map(|(g, s)| g.accumulator(s.buffer(), 0)).collect();
    let accumulator = gpu.clipper.prepare_accumulation(&grads).unwrap();
    for batch in 0..BATCHES {
        for (grad, g) in grads.iter().zip(micro(batch)) {
            gpu.queue.write_buffer(grad.buffer(), 0, bytemuck::cast_slice(&g));
        }
        record!(gpu, accumulator, batch);
    }
    gpu.run(&gpu.clipper.prepare(&there, &clip).unwrap());
    let got = contents(&gpu, &there, &sums);
    right(&got, &gpu.name);
    assert!(common::bits(&got) == common::bits(&sums), "{}", gpu.name);
}

/// Each micro-batch by its own norms; one that is not finite adds nothing, also when it begins.
#[test]
fn clip_then_accumulate() {
    let gpu = gpu();
    let batches: Vec<Vec<Vec<f32>>> = (0..BATCHES)
        .map(|batch| {
            let mut tensors = micro(batch);
            if batch == 0 || batch == 3 {
                tensors[1][20_000] = f32::INFINITY;
            }
            tensors
        })
        .collect();
    for clip in [
        Clip::global_norm(1.0),
        Clip::per_tensor_norm(1.0),
        Clip::per_unit_norm(0.1, Units::OutputFirst),
        Clip::global_norm(1.0).on_non_finite(NonFinite::Sanitize),
        Clip::value(0.3),
    ] {
        // Clipping by itself, then adding in f64.
        let mut want: Vec<Vec<f64>> = SIZES.iter().map(|&n| vec![0.0; n]).collect();
        for tensors in &batches {
            let mut clipped = tensors.clone();
            let mut grads: Vec<_> =
                clipped.iter_mut().zip(SIZES).map(|(g, n)| GradMut::new("t", g).shape(&shape(n))).collect();
            let report = cpu::clip(&mut grads, &clip).unwrap();
            for (t, g) in clipped.iter().enumerate() {
                let width = if shape(g.len()).len() == 2 { 3 } else { g.len() };
                let skipped = |i: usize| match clip.scope {
                    Scope::Unit(_) => tensors[t][i / width * width..][..width].iter().any(|x| !x.is_finite()),
                    _ => report.segments[report.tensors[t].segment].skipped,
                };
                let added = g.iter().zip(&mut want[t]).enumerate().filter(|(i, _)| !skipped(*i));
                added.for_each(|(_, (g, w))| *w += f64::from(*g));
            }
        }
        let mut sums: Vec<Vec<f32>> = SIZES.iter().map(|&n| vec![f32::NAN; n]).collect();
        let mut history = History::default();
        for (batch, tensors) in batches.iter().enumerate() {
            let mut pairs: Vec<_> = sums
                .iter_mut()
                .zip(tensors)
                .map(|(s, g)| SumMut::new("t", &g[..], s).shape(&shape(g.len())))
                .collect();
            cpu::accumulate_clipped(&mut pairs, batch == 0, &clip, &mut history).unwrap();
        }
        for (s, w) in sums.iter().flatten().zip(want.iter().flatten()) {
            assert!((f64::from(*s) - w).abs() <= SUM_ERROR, "{clip:?}: {s} {w}");
        }
        let Some(gpu) = &gpu else { continue };
        let there = gpu.separate(&sums);
        let grads: Vec<Grad> = gpu
            .separate(&batches[0])
            .into_iter()
            .zip(&there)
            .map(|(g, s)| {
                let shape = shape(g.elements() as usize);
                g.shape(&shape).accumulator(s.buffer(), 0)
            })
            .collect();
        let accumulator = gpu.clipper.prepare_clipped_accumulation(&grads, &clip).unwrap();
        for (batch, tensors) in batches.iter().enumerate() {
            for (grad, g) in grads.iter().zip(tensors) {
                gpu.queue.write_buffer(grad.buffer(), 0, bytemuck::cast_slice(g));
            }
            record!(gpu, accumulator, batch);
        }
        assert!(contents(gpu, &there, &sums) == sums, "{clip:?} on {}", gpu.name);
    }
}

/// Threes where the length allows, else one axis.
fn shape(n: usize) -> Vec<u64> {
    if n.is_multiple_of(3) { vec![n as u64 / 3, 3] } else { vec![n as u64] }
}

#[test]
fn what_an_accumulation_needs_is_asked_for_by_name() {
    let (g, mut sum) = ([1.0f32; 3], [0.0f32; 2]);
    let refused = cpu::accumulate(&mut [SumMut::new("w", &g[..], &mut sum)], true).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "tensor `w`: required an accumulator of 3 elements, as its gradient has, given 2"
    );
    let Some(gpu) = gpu() else { return };
    let grad = gpu.separate(&[vec![1.0; 3]]).remove(0);
    let refused = gpu.clipper.prepare_accumulation(std::slice::from_ref(&grad)).unwrap_err();
    assert!(matches!(refused, PrepareError::Clip(ClipError::Tensor { .. })), "{refused}");
    let itself = grad.clone().accumulator(grad.buffer(), 0);
    let refused = gpu.clipper.prepare_accumulation(&[itself]).unwrap_err();
    assert!(matches!(refused, PrepareError::Plan(PlanError::Overlap { .. })), "{refused}");
    assert_eq!(gpu.clipper.prepare_accumulation(&[]).unwrap().dispatch_count(), 0);
}

/// Sums of zeros have the sign that addition gives them, and what is skipped leaves it.
#[test]
fn signs_of_zero() {
    let gpu = gpu();
    let batches = [[0.0f32, -0.0, -0.0, 0.0, 1.0], [-0.0, 0.0, -0.0, 0.0, -1.0], [f32::NAN; 5]];
    let want = [0.0f32, 0.0, -0.0, 0.0, 0.0];
    let same = |got: &[f32]| got.iter().zip(want).all(|(g, w)| g.to_bits() == w.to_bits());
    let clip = Clip::measure();
    let (mut sum, mut history) = ([f32::NAN; 5], History::default());
    for (batch, g) in batches.iter().enumerate() {
        let mut pairs = [SumMut::new("t", &g[..], &mut sum)];
        cpu::accumulate_clipped(&mut pairs, batch == 0, &clip, &mut history).unwrap();
    }
    assert!(same(&sum), "{sum:?}");
    let Some(gpu) = gpu else { return };
    let there = gpu.separate(&[vec![f32::NAN; 5]]);
    let grads = gpu.separate(&[vec![0.0; 5]]);
    let grads = [grads[0].clone().accumulator(there[0].buffer(), 0)];
    let accumulator = gpu.clipper.prepare_clipped_accumulation(&grads, &clip).unwrap();
    for (batch, g) in batches.iter().enumerate() {
        gpu.queue.write_buffer(grads[0].buffer(), 0, bytemuck::cast_slice(g));
        record!(gpu, accumulator, batch);
    }
    let got: Vec<f32> = gpu.read(there[0].buffer());
    assert!(same(&got), "{got:?} on {}", gpu.name);
}

/// Plain sums take excluded groups too: all are added as they are.
#[test]
fn groups_that_no_norm_counts_are_added_too() {
    let Some(gpu) = gpu() else { return };
    let tensors = micro(0);
    let grads = gpu.separate(&tensors);
    let sums: Vec<_> =
        tensors.iter().map(|t| gpu.buffer(bytemuck::cast_slice(&vec![7.0f32; t.len()]))).collect();
    let grads: Vec<Grad> = grads
        .into_iter()
        .zip(&sums)
        .zip(0..)
        .map(|((grad, sum), i)| {
            let grad = grad.accumulator(sum, 0);
            if i % 2 == 1 { grad.group(&Group::excluded("biases")) } else { grad }
        })
        .collect();
    let accumulator = gpu.clipper.prepare_accumulation(&grads).unwrap();
    record!(gpu, accumulator, 0);
    record!(gpu, accumulator, 1);
    for (sum, tensor) in sums.iter().zip(&tensors) {
        let twice: Vec<f32> = tensor.iter().map(|x| x + x).collect();
        assert_eq!(gpu.read::<f32>(sum)[..tensor.len()], twice, "{}", gpu.name);
    }
}
