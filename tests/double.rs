//! Clips of `f64` gradients on the CPU path: the answers of PyTorch, the numbers that peers agree on, every
//! rule and scope against a plain program, policies, and results at the ends of the range.

#![allow(clippy::unwrap_used)]

mod common;

use common::files::{self, number};
use common::tolerance::{EIGHT_DIGITS, PLAIN_SUMS_F64, SCALED_F64 as CLOSE, SEVEN_DIGITS};
use common::{Data, assert_all_close, assert_close, grads, plain};
use gradclip::cpu::{self, GradMut};
use gradclip::{Clip, NormType, Report, Units};
use gradclip_verify::inputs;

fn clip(tensors: &mut [Vec<f64>], clip: &Clip) -> Report {
    let mut grads: Vec<_> = tensors.iter_mut().map(|t| GradMut::f64("g", t)).collect();
    cpu::clip(&mut grads, clip).unwrap()
}

fn one(g: &[f64], how: &Clip) -> (Vec<f64>, Report) {
    let mut own = [g.to_vec()];
    let report = clip(&mut own, how);
    (own[0].clone(), report)
}

fn close(own: &[f64], want: &[f64], relative: f64, what: &str) {
    assert_close(own.iter().copied(), want.iter().copied(), relative, 0.0, what);
}

/// `torch.nn.utils.clip_grad_norm_` on the files of `tests/data/cases2`.
#[test]
fn pytorch_clips_float64_so() {
    for case in ["torch_f64_file_close_values", "torch_f64_file_mixed", "torch_f64_file_pinf"] {
        let folder = files::folder("cases2").join(case);
        let about = files::json(&folder.join("case.json")).unwrap();
        // Where the peer was wrong, `exact` has its formula in exact arithmetic.
        let expected = if about["exact"].is_string() { "exact.safetensors" } else { "expected.safetensors" };
        let [mut tensors, expected] =
            ["input.safetensors", expected].map(|file| files::tensors(&folder.join(file)).unwrap());
        let names = about["tensors"].as_array().unwrap();
        assert!(
            tensors.iter().map(|t| t.name.as_str()).eq(names.iter().map(|n| n.as_str().unwrap())),
            "{case}"
        );
        let norm = NormType::P(number(&about["args"]["norm_type"]).unwrap());
        let how = Clip::pytorch(number(&about["args"]["max_norm"]).unwrap()).norm_type(norm);
        let report = cpu::clip(&mut grads(&mut tensors), &how).unwrap();
        // The true norm was printed with 17 digits; ours is within 0.51 ulp.
        let norm = number(&about["true_norm"]).unwrap();
        assert_close(report.norm(), [norm], CLOSE, 0.0, case);
        for (own, want) in tensors.iter().zip(&expected) {
            let kind = if matches!(own.data, Data::F64(_)) { "float64" } else { "float32" };
            let of = |key: &str| number(&about["tolerances"][kind][key]).or(number(&about[key])).unwrap();
            assert_close(own.data.values(), want.data.values(), of("rtol"), of("atol"), case);
        }
    }
}

#[test]
fn numbers_that_peers_agree_on() {
    let check = |how: Clip, x: &[Vec<f64>], norm: f64, want: &[Vec<f64>], tolerance: f64| {
        let mut own = x.to_vec();
        let report = clip(&mut own, &how);
        assert_close(report.norm(), [norm], tolerance, 0.0, &format!("{how:?}"));
        close(&own.concat(), &want.concat(), tolerance, "golden");
    };
    let tf = [vec![-2.0, 0.0, 0.0, 4.0, 0.0, 0.0], vec![1.0, -2.0]];
    check(Clip::global_norm(4.0), &tf, 5.0, &[vec![-1.6, 0.0, 0.0, 3.2, 0.0, 0.0], vec![0.8, -1.6]], CLOSE);
    check(Clip::global_norm(6.0), &tf, 5.0, &tf, 0.0);
    check(Clip::global_norm(6.0), &[vec![0.0; 5]], 0.0, &[vec![0.0; 5]], 0.0);
    let x: [Vec<f64>; 2] = [(1..=100).map(f64::from).collect(), vec![0.001; 10]];
    let norms = [(0.5, 451_287.26), (1.0, 5050.01), (1.5, 1179.3574), (2.0, 581.678_605), (4.0, 212.792_402)];
    for (p, norm) in norms.into_iter().chain([(f64::INFINITY, 100.0)]) {
        // As many digits as PEERS have.
        check(Clip::measure().norm_type(NormType::P(p)), &x, norm, &x, EIGHT_DIGITS);
    }
    let root = 200f64.sqrt();
    let tch = [vec![2.0, 2.0], vec![8.0], vec![-8.0, -8.0]];
    let want = [vec![2.0 / root; 2], vec![8.0 / root], vec![-8.0 / root; 2]];
    check(Clip::global_norm(1.0), &tch, root, &want, 2.0 * CLOSE);
    check(Clip::global_norm(1e-31), &[vec![8e-30]], 8e-30, &[vec![1e-31]], CLOSE);
    check(Clip::global_norm(0.0), &[vec![3.0, -4.0]], 5.0, &[vec![0.0; 2]], 0.0);
    check(Clip::measure(), &[vec![3.0, -4.0]], 5.0, &[vec![3.0, -4.0]], 0.0);
    check(Clip::global_norm(1e-7), &[vec![1e-7]], 1e-7, &[vec![1e-7]], 0.0);
    let book = [1.0, 2.0, 3.0, 4.0, 5.0];
    let want = [0.269_679_96, 0.539_359_9, 0.809_039_83, 1.078_719_9, 1.348_399_8];
    close(&one(&book, &Clip::per_tensor_norm(2.0)).0, &want, 0.5 * SEVEN_DIGITS, "TensorFlow's page");
    let value = one(&[-5.0, 2.0, 3.0, 4.0, 5.0, 6.0], &Clip::value(4.4)).0;
    assert_eq!(value, [-4.4, 2.0, 3.0, 4.0, 4.4, 4.4]);
    let average = one(&[-3.0, 0.0, 0.0, 4.0, 0.0, 0.0], &Clip::average_norm(0.8)).0;
    close(&average, &[-2.88, 0.0, 0.0, 3.84, 0.0, 0.0], CLOSE, "average");
    let rows = [-3.0, 0.0, 0.0, 4.0, 0.0, 3.0];
    let mut by_row = rows;
    let mut grads = [GradMut::f64("g", &mut by_row).shape(&[2, 3])];
    cpu::clip(&mut grads, &Clip::per_unit_norm(4.0, Units::OutputFirst)).unwrap();
    close(&by_row, &[-3.0, 0.0, 0.0, 3.2, 0.0, 2.4], CLOSE, "rows");
    let mut by_column = rows;
    let mut grads = [GradMut::f64("g", &mut by_column).shape(&[2, 3])];
    cpu::clip(&mut grads, &Clip::per_unit_norm(4.0, Units::over(&[0]))).unwrap();
    close(&by_column, &[-2.4, 0.0, 0.0, 3.2, 0.0, 3.0], CLOSE, "columns");
}

/// Root mean squares and per-example sums as Optax has them, and a range that overflows elsewhere.
#[test]
fn blocks_rows_and_ranges_as_the_peers() {
    let mut own = [vec![500.0, 5.0], vec![300.0, 3.0]];
    clip(&mut own, &Clip::block_rms(1.0));
    own.iter().for_each(|g| close(g, &[1.414_142_86, 0.014_141_43], SEVEN_DIGITS, "block_rms"));
    let (mut a, mut b) = ([0.0, -0.5, 3.0, 4.0, 5.0, 6.0, 0.0, 0.0], [0.0, 5.0, -3.0, 0.0]);
    let mut grads = [GradMut::f64("a", &mut a).shape(&[4, 2]), GradMut::f64("b", &mut b).shape(&[4, 1])];
    let report = cpu::clip(&mut grads, &Clip::per_row_norm(1.0)).unwrap();
    let column = |i: usize| a.iter().skip(i).step_by(2).sum::<f64>();
    let sums = [column(0), column(1), b.iter().sum()];
    close(&sums, &[1.021_878_37, 0.782_822_59, 0.348_538_20], EIGHT_DIGITS, "rows");
    assert_eq!(report.clipped_segments, 2);
    // Squares of these overflow an f64; PyTorch's norm is then infinite and its gradients zeros.
    let (own, report) = one(&[1e200; 100], &Clip::global_norm(1.0));
    assert_close(report.norm(), [1e201], CLOSE, 0.0, "range");
    close(&own, &[0.1; 100], CLOSE, "range");
}

/// AGC of Optax at 1, with the parameters [1, 2] and [3, 4].
#[test]
fn adaptive_clipping_as_optax() {
    let (mut a, mut b) = ([500.0, 5.0], [300.0, 3.0]);
    let (p, q) = ([1.0, 2.0], [3.0f32, 4.0]);
    let mut grads = [
        GradMut::f64("a", &mut a).shape(&[2]).parameter(&p[..]),
        GradMut::f64("b", &mut b).shape(&[2]).parameter(&q[..]),
    ];
    cpu::clip(&mut grads, &Clip::agc(1.0, Units::OutputFirst)).unwrap();
    close(&a, &[2.235_956_18, 0.022_359_56], EIGHT_DIGITS, "a");
    close(&b, &[4.999_75, 0.049_997_5], EIGHT_DIGITS, "b");
    // A gradient of f32 beside a parameter of f64 takes the same path.
    let (mut c, r) = ([3.0f32, 4.0], [0.3, 0.4]);
    let mut grads = [GradMut::new("c", &mut c).shape(&[2]).parameter(&r[..])];
    let report = cpu::clip(&mut grads, &Clip::agc(1.0, Units::OutputFirst)).unwrap();
    assert_eq!((c, report.tensors[0].norm), ([0.3, 0.4], 5.0));
}

/// Every rule in every scope that it goes with, against a program of plain sums.
#[test]
fn rules_and_scopes_are_those_of_a_plain_program() {
    let mut count = 0;
    for how in inputs::clips() {
        for seed in 0..4 {
            let mut tensors = inputs::four_rows(seed, &how);
            let want = plain::clip(&tensors, &how).values;
            cpu::clip(&mut grads(&mut tensors), &how).unwrap();
            assert_all_close(&tensors, &want, PLAIN_SUMS_F64, &format!("{how:?}"));
            count += 1;
        }
    }
    assert!(count > 100, "{count}");
}
