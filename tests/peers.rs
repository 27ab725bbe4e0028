//! Answers of Optax and TensorFlow that need more than the command line has: units over axes, average
//! norms, per-example and per-layer clipping. On the CPU path and on the adapter.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::gpu;
use gradclip::cpu::{self, GradMut};
use gradclip::{Clip, Report, Units};
use safetensors::SafeTensors;
use serde_json::Value;

struct Tensor {
    shape: Vec<u64>,
    values: Vec<f32>,
}

struct Case {
    json: Value,
    input: Vec<Tensor>,
    expected: Vec<Tensor>,
}

fn case(name: &str, expected: &str) -> Case {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/library_cases").join(name);
    let json: Value = serde_json::from_slice(&std::fs::read(folder.join("case.json")).unwrap()).unwrap();
    let tensors = |file: &str, prefix: &str| {
        let bytes = std::fs::read(folder.join(file)).unwrap();
        let parsed = SafeTensors::deserialize(&bytes).unwrap();
        let one = |i: usize| {
            let view = parsed.tensor(&format!("{prefix}.{i:04}")).unwrap();
            Tensor {
                shape: view.shape().iter().map(|&n| n as u64).collect(),
                values: view.data().chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
            }
        };
        (0..json["tensors"].as_array().unwrap().len()).map(one).collect()
    };
    let (input, expected) = (tensors("input.safetensors", "g"), tensors("expected.safetensors", expected));
    Case { json, input, expected }
}

fn number(value: &Value) -> f64 {
    value.as_f64().or_else(|| value.as_str()?.parse().ok()).unwrap()
}

/// On the CPU path, and on the adapter to the same bits.
fn clipped(tensors: &[Tensor], clip: &Clip) -> (Report, Vec<Vec<f32>>) {
    let mut after: Vec<Vec<f32>> = tensors.iter().map(|t| t.values.clone()).collect();
    let mut grads: Vec<_> =
        after.iter_mut().zip(tensors).map(|(v, t)| GradMut::new("g", v).shape(&t.shape)).collect();
    let report = cpu::clip(&mut grads, clip).unwrap();
    if let Some(gpu) = gpu() {
        let before: Vec<Vec<f32>> = tensors.iter().map(|t| t.values.clone()).collect();
        let grads: Vec<_> =
            gpu.separate(&before).into_iter().zip(tensors).map(|(g, t)| g.shape(&t.shape)).collect();
        let there = gpu.run(&gpu.clipper.prepare(&grads, clip).unwrap());
        assert_eq!(there.clipped_segments, report.clipped_segments);
        let written = common::contents(&gpu, &grads, &before);
        assert!(common::bits(&written) == common::bits(&after), "{clip:?} on {}", gpu.name);
    }
    (report, after)
}

fn assert_close(case: &Case, got: &[Vec<f32>]) {
    let (rtol, atol) = (number(&case.json["rtol"]), number(&case.json["atol"]));
    for (got, want) in got.iter().zip(&case.expected) {
        assert_eq!(got.len(), want.values.len());
        for (&g, &w) in got.iter().zip(&want.values) {
            let (g, w) = (f64::from(g), f64::from(w));
            let same = (g.is_nan() && w.is_nan()) || (g - w).abs() <= atol + rtol * w.abs();
            assert!(same, "{}: {g} is not {w}", case.json["name"]);
        }
    }
}

#[test]
fn tensorflow_norms_over_axes_and_averages() {
    for name in ["tf_norm_matrix_axes_0", "tf_norm_rank3_axes_0_2", "tf_avgnorm_clip", "tf_avgnorm_noclip"] {
        let case = case(name, "g");
        let threshold = number(&case.json["args"]["clip_norm"]) as f32;
        let clip = match case.json["args"]["axes"].as_array() {
            None => Clip::average_norm(threshold),
            Some(axes) => {
                let axes: Vec<usize> = axes.iter().map(|a| a.as_u64().unwrap() as usize).collect();
                Clip::per_unit_norm(threshold, Units::over(&axes))
            }
        };
        assert_close(&case, &clipped(&case.input, &clip).1);
    }
    // TensorFlow's own tests.
    let x = [Tensor { shape: vec![2, 3], values: vec![-3.0, 0.0, 0.0, 4.0, 0.0, 3.0] }];
    for (axis, want) in [(0, [-2.4, 0.0, 0.0, 3.2, 0.0, 3.0]), (1, [-3.0, 0.0, 0.0, 3.2, 0.0, 2.4f32])] {
        let (_, after) = clipped(&x, &Clip::per_unit_norm(4.0, Units::over(&[axis])));
        assert!(after[0].iter().zip(want).all(|(a, w)| (a - w).abs() < 1e-6), "{after:?}");
    }
    let empty = [Tensor { shape: vec![7, 0], values: vec![] }];
    for clip in
        [Clip::per_unit_norm(4.0, Units::over(&[1])), Clip::average_norm(1.0), Clip::per_row_norm(1.0)]
    {
        assert_eq!(clipped(&empty, &clip).0.clipped_segments, 0);
    }
}

/// Sums over the first axis, which counts examples.
fn sums(case: &Case, after: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let sum = |(values, t): (&Vec<f32>, &Tensor)| {
        let width = values.len() / t.shape[0] as usize;
        (0..width).map(|c| values.iter().skip(c).step_by(width).sum()).collect()
    };
    after.iter().zip(&case.input).map(sum).collect()
}

#[test]
fn optax_per_example() {
    for name in ["optax_per_example_some", "optax_per_example_nan_row"] {
        let case = case(name, "sum");
        let clip = Clip::per_row_norm(number(&case.json["args"]["l2_norm_clip"]) as f32);
        let (report, after) = clipped(&case.input, &clip);
        assert_close(&case, &sums(&case, &after));
        assert_eq!(report.clipped_segments, case.json["num_clipped"].as_u64().unwrap());
    }
}

/// Each layer's share of the limit is 1/√layers.
#[test]
fn optax_per_layer() {
    let case = case("optax_per_layer_uniform", "sum");
    let share = number(&case.json["args"]["global_l2_norm_clip"]) / (case.input.len() as f64).sqrt();
    let counts = case.json["num_clipped"].as_array().unwrap();
    let mut after = Vec::new();
    for (tensor, count) in case.input.iter().zip(counts) {
        let (report, own) = clipped(std::slice::from_ref(tensor), &Clip::per_row_norm(share as f32));
        assert_eq!(report.clipped_segments, count.as_u64().unwrap());
        after.extend(own);
    }
    assert_close(&case, &sums(&case, &after));
}
