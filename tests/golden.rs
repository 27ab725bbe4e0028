//! Numbers that TensorFlow's, PyTorch's, tch-rs', Optax' and Burn's own documents and tests state,
//! on the CPU path and on the GPU.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::tolerance::{EIGHT_DIGITS, SEVEN_DIGITS, TWICE_ROUNDED as EXACT};
use common::{assert_close, gpu, on_cpu};
use gradclip::{Clip, NormType, Report};

/// `tolerance` is relative: the digits that the source states, or two roundings where it states all.
fn check(clip: Clip, tensors: &[Vec<f32>], norm: f64, want: &[Vec<f32>], tolerance: f64) {
    let assert = |who: &str, (report, got): (Report, Vec<Vec<f32>>)| {
        if let Some(n) = report.norm() {
            assert_close([n], [norm], tolerance.max(EXACT), 0.0, who);
        }
        assert_close(got.concat(), want.concat(), tolerance, 0.0, who);
    };
    assert("CPU", on_cpu(tensors, &clip));
    let Some(gpu) = gpu() else { return };
    assert(&gpu.name, gpu.clip(tensors, &clip));
}

#[test]
fn tensorflow_clip_by_global_norm() {
    let x = [vec![-2.0, 0.0, 0.0, 4.0, 0.0, 0.0], vec![1.0, -2.0]];
    let clipped = [vec![-1.6, 0.0, 0.0, 3.2, 0.0, 0.0], vec![0.8, -1.6]];
    check(Clip::global_norm(4.0), &x, 5.0, &clipped, EXACT);
    check(Clip::global_norm(6.0), &x, 5.0, &x, 0.0);
    let zeros = [vec![0.0; 6], vec![0.0; 2]];
    check(Clip::global_norm(6.0), &zeros, 0.0, &zeros, 0.0);
}

#[test]
fn tensorflow_clip_by_norm() {
    let x = [vec![-3.0, 0.0, 0.0, 4.0, 0.0, 0.0]];
    check(Clip::per_tensor_norm(4.0), &x, 5.0, &[vec![-2.4, 0.0, 0.0, 3.2, 0.0, 0.0]], EXACT);
    check(Clip::per_tensor_norm(6.0), &x, 5.0, &x, 0.0);
    let docs = [0.269_679_96, 0.539_359_9, 0.809_039_83, 1.078_719_9, 1.348_399_8];
    check(
        Clip::per_tensor_norm(2.0),
        &[vec![1.0, 2.0, 3.0, 4.0, 5.0]],
        55f64.sqrt(),
        &[docs.to_vec()],
        2.0 * EIGHT_DIGITS,
    );
}

#[test]
fn pytorch_norm_types() {
    let x = [(1..=100).map(|i| i as f32).collect(), vec![0.001; 10]];
    for (norm, value) in [(NormType::One, 5050.01), (NormType::Two, 581.678_605), (NormType::Inf, 100.0)] {
        check(Clip::measure().norm_type(norm), &x, value, &x, 0.0);
    }
    let (report, _) = on_cpu(&x, &Clip::global_norm(2.0));
    assert_close(report.coefficient(), [0.003_438_324_84], EIGHT_DIGITS, 0.0, "coefficient");
}

#[test]
fn tch_rs_and_optax() {
    let x = [vec![2.0, 2.0], vec![8.0], vec![-8.0, -8.0]];
    let want = [vec![0.141_421_36; 2], vec![0.565_685_4], vec![-0.565_685_4; 2]];
    check(Clip::global_norm(1.0), &x, 200f64.sqrt(), &want, 2.0 * EXACT);
    let x = [vec![500.0, 5.0], vec![300.0, 3.0]];
    let want = [vec![0.857_450_05, 0.008_574_5], vec![0.514_470_03, 0.005_144_7]];
    check(Clip::global_norm(1.0), &x, 583.124_344, &want, SEVEN_DIGITS);
}

#[test]
fn the_edges_that_users_report() {
    let same = |clip: Clip, x: &[Vec<f32>], norm: f64| check(clip, x, norm, x, 0.0);
    same(Clip::global_norm(2.2), &[vec![1.0, 0.4]], 1.16f64.sqrt());
    same(Clip::global_norm(5.0), &[vec![3.0, 4.0]], 5.0);
    same(Clip::global_norm(1e-7), &[vec![1e-7]], f64::from(1e-7f32));
    same(Clip::global_norm(f32::INFINITY), &[vec![3e38; 9]], f64::from(3e38f32) * 3.0);
    check(Clip::global_norm(0.0), &[vec![3.0, -4.0]], 5.0, &[vec![0.0; 2]], 0.0);
}

/// 100 elements of 1e20 overflow PyTorch's f32 sum of squares; here they clip.
#[test]
fn squares_that_overflow_and_underflow() {
    check(Clip::global_norm(1.0), &[vec![1e20; 100]], 1e21, &[vec![0.1; 100]], 2.0 * EXACT);
    let want = vec![2.0 / 128f32.sqrt(); 128];
    check(Clip::global_norm(2.0), &[vec![1e19; 128]], 1.131_370_9e20, &[want], 3.0 * EXACT);
    check(Clip::global_norm(1e-31), &[vec![8e-30]], 8e-30, &[vec![1e-31]], 2.0 * EXACT);
    // A norm above f32::MAX is reported as it is, and clips.
    check(Clip::global_norm(1.0), &[vec![3e38; 100]], 3e39, &[vec![0.1; 100]], 2.0 * EXACT);
}
