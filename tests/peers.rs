//! Answers of Optax and TensorFlow that need more than the command line has: units over axes, average
//! norms, per-example and per-layer clipping. On the CPU path and on the adapter.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::files::{self, number};
use common::tolerance::SEVEN_DIGITS;
use common::{Tensor, assert_close, floats, gpu, on_both};
use gradclip::{Clip, Report, Units};
use serde_json::Value;

struct Case {
    json: Value,
    input: Vec<Tensor>,
    expected: Vec<Tensor>,
}

fn case(name: &str, expected: &str) -> Case {
    let folder = files::folder("library_cases").join(name);
    let tensors = |file: &str, prefix: &str| {
        let mut tensors = files::tensors(&folder.join(file)).unwrap();
        tensors.retain(|t| t.name.starts_with(&format!("{prefix}.")));
        tensors
    };
    let json = files::json(&folder.join("case.json")).unwrap();
    let case = Case {
        json,
        input: tensors("input.safetensors", "g"),
        expected: tensors("expected.safetensors", expected),
    };
    assert_eq!(case.json["tensors"].as_array().unwrap().len(), case.input.len());
    assert_eq!(case.expected.len(), case.input.len());
    case
}

impl Case {
    fn number(&self, name: &str) -> f64 {
        number(&self.json["args"][name]).unwrap()
    }

    fn assert_close(&self, got: &[Vec<f32>]) {
        let of = |key: &str| number(&self.json[key]).unwrap();
        let name = self.json["name"].to_string();
        for (got, want) in got.iter().zip(&self.expected) {
            assert_close(got.iter().copied(), want.data.values(), of("rtol"), of("atol"), &name);
        }
    }

    /// Sums over the first axis, which counts examples.
    fn sums(&self, after: &[Vec<f32>]) -> Vec<Vec<f32>> {
        let sum = |(values, t): (&Vec<f32>, &Tensor)| {
            let width = values.len() / t.shape.as_ref().unwrap()[0] as usize;
            (0..width).map(|c| values.iter().skip(c).step_by(width).sum()).collect()
        };
        after.iter().zip(&self.input).map(sum).collect()
    }
}

/// On the CPU path, and on the adapter to the same bits.
fn clipped(tensors: &[Tensor], clip: &Clip) -> (Report, Vec<Vec<f32>>) {
    let (report, after) = on_both(&gpu(), tensors, clip);
    (report, floats(&after))
}

#[test]
fn tensorflow_norms_over_axes_and_averages() {
    for name in ["tf_norm_matrix_axes_0", "tf_norm_rank3_axes_0_2", "tf_avgnorm_clip", "tf_avgnorm_noclip"] {
        let case = case(name, "g");
        let threshold = case.number("clip_norm") as f32;
        let clip = match case.json["args"]["axes"].as_array() {
            None => Clip::average_norm(threshold),
            Some(axes) => {
                let axes: Vec<usize> = axes.iter().map(|a| a.as_u64().unwrap() as usize).collect();
                Clip::per_unit_norm(threshold, Units::over(&axes))
            }
        };
        case.assert_close(&clipped(&case.input, &clip).1);
    }
    // TensorFlow's own tests.
    let x = [Tensor::new("x", vec![-3.0f32, 0.0, 0.0, 4.0, 0.0, 3.0]).shape(&[2, 3])];
    for (axis, want) in [(0, [-2.4, 0.0, 0.0, 3.2, 0.0, 3.0]), (1, [-3.0, 0.0, 0.0, 3.2, 0.0, 2.4f32])] {
        let (_, after) = clipped(&x, &Clip::per_unit_norm(4.0, Units::over(&[axis])));
        assert_close(after[0].iter().copied(), want, 0.0, SEVEN_DIGITS, "axes");
    }
    let empty = [Tensor::new("empty", Vec::<f32>::new()).shape(&[7, 0])];
    for clip in
        [Clip::per_unit_norm(4.0, Units::over(&[1])), Clip::average_norm(1.0), Clip::per_row_norm(1.0)]
    {
        assert_eq!(clipped(&empty, &clip).0.clipped_segments, 0);
    }
}

#[test]
fn optax_per_example() {
    for name in ["optax_per_example_some", "optax_per_example_nan_row"] {
        let case = case(name, "sum");
        let clip = Clip::per_row_norm(case.number("l2_norm_clip") as f32);
        let (report, after) = clipped(&case.input, &clip);
        case.assert_close(&case.sums(&after));
        assert_eq!(report.clipped_segments, case.json["num_clipped"].as_u64().unwrap());
    }
}

/// What private learning adds up before its noise: clipped examples, or automatically clipped ones.
#[test]
fn sums_of_private_examples() {
    for (name, kind) in
        [("opacus_flat_sum", "sum"), ("optax_dp_mean_none", "mean"), ("f64_autos_mean_wide", "mean")]
    {
        let case = case(name, kind);
        let clip = match name {
            "opacus_flat_sum" => Clip::per_row_norm(case.number("max_grad_norm")).eps(1e-6),
            "optax_dp_mean_none" => Clip::per_row_norm(case.number("l2_norm_clip")),
            _ => Clip::automatic(case.number("gamma")),
        };
        let (_, after) = clipped(&case.input, &clip);
        let examples = case.input[0].shape.as_ref().unwrap()[0] as f32;
        let by = if kind == "mean" { examples } else { 1.0 };
        let sums = case.sums(&after).into_iter();
        let sums: Vec<Vec<f32>> = sums.map(|sum| sum.into_iter().map(|x| x / by).collect()).collect();
        case.assert_close(&sums);
    }
}

/// Each layer's share of the limit is 1/√layers.
#[test]
fn optax_per_layer() {
    let case = case("optax_per_layer_uniform", "sum");
    let share = case.number("global_l2_norm_clip") / (case.input.len() as f64).sqrt();
    let counts = case.json["num_clipped"].as_array().unwrap();
    let mut after = Vec::new();
    for (tensor, count) in case.input.iter().zip(counts) {
        let (report, own) = clipped(std::slice::from_ref(tensor), &Clip::per_row_norm(share as f32));
        assert_eq!(report.clipped_segments, count.as_u64().unwrap());
        after.extend(own);
    }
    case.assert_close(&case.sums(&after));
}
