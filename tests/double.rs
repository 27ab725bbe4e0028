//! Clips of `f64` gradients on the CPU path: the answers of PyTorch, the numbers that peers agree on, every
//! rule and scope against a plain program, policies, and results at the ends of the range.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use gradclip::cpu::{self, GradMut};
use gradclip::{Clip, Group, NormType, Report, Units};
use gradclip_verify::compare::assert_close;
use gradclip_verify::oracle::plain::{self, Tensor, clip_plainly, random_set};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

fn clip(tensors: &mut [Vec<f64>], clip: &Clip) -> Report {
    let mut grads: Vec<_> = tensors.iter_mut().map(|t| GradMut::f64("g", t)).collect();
    cpu::clip(&mut grads, clip).unwrap()
}

fn one(g: &[f64], how: &Clip) -> (Vec<f64>, Report) {
    let mut own = [g.to_vec()];
    let report = clip(&mut own, how);
    (own[0].clone(), report)
}

fn numbers<const N: usize, T>(bytes: &[u8], value: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|b| value(*b)).collect()
}

/// A tensor of a file, of either type.
enum Read {
    Double(Vec<f64>),
    Single(Vec<f32>),
}

impl Read {
    fn of(file: &SafeTensors<'_>, name: &str) -> Read {
        let tensor = file.tensor(name).unwrap();
        match tensor.dtype() {
            Dtype::F64 => Read::Double(numbers(tensor.data(), f64::from_le_bytes)),
            _ => Read::Single(numbers(tensor.data(), f32::from_le_bytes)),
        }
    }

    fn values(&self) -> Vec<f64> {
        match self {
            Read::Double(v) => v.clone(),
            Read::Single(v) => v.iter().map(|&x| x.into()).collect(),
        }
    }
}

fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str().and_then(|s| s.parse().ok()))
}

/// `torch.nn.utils.clip_grad_norm_` on the files of `tests/data/cases2`.
#[test]
fn pytorch_clips_float64_so() {
    for case in ["torch_f64_file_close_values", "torch_f64_file_mixed", "torch_f64_file_pinf"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/cases2").join(case);
        let read = |name: &str| fs::read(folder.join(name)).unwrap();
        let about: Value = serde_json::from_slice(&read("case.json")).unwrap();
        // Where the peer was wrong, `exact` has its formula in exact arithmetic.
        let expected = if about["exact"].is_string() { "exact.safetensors" } else { "expected.safetensors" };
        let (input, expected) = (read("input.safetensors"), read(expected));
        let (input, expected) = (SafeTensors::deserialize(&input), SafeTensors::deserialize(&expected));
        let (input, expected) = (input.unwrap(), expected.unwrap());
        let names: Vec<&str> =
            about["tensors"].as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect();
        let mut tensors: Vec<Read> = names.iter().map(|name| Read::of(&input, name)).collect();
        let norm = NormType::P(number(&about["args"]["norm_type"]).unwrap());
        let how = Clip::pytorch(number(&about["args"]["max_norm"]).unwrap()).norm_type(norm);
        let grads = tensors.iter_mut().zip(&names).map(|(t, name)| match t {
            Read::Double(v) => GradMut::f64(*name, v),
            Read::Single(v) => GradMut::new(*name, v),
        });
        let report = cpu::clip(&mut grads.collect::<Vec<_>>(), &how).unwrap();
        // The true norm was printed with 17 digits; ours is within 0.51 ulp.
        let norm = number(&about["true_norm"]).unwrap();
        assert!((report.norm().unwrap() / norm - 1.0).abs() <= 4e-16, "{case}: {:?} {norm}", report.norm());
        for (name, own) in names.iter().zip(&tensors) {
            let kind = if matches!(own, Read::Double(_)) { "float64" } else { "float32" };
            let of = |key: &str| number(&about["tolerances"][kind][key]).or(number(&about[key])).unwrap();
            assert_close(&own.values(), &Read::of(&expected, name).values(), of("rtol"), of("atol"), case);
        }
    }
}

/// The library's own tolerance: coefficient and product are rounded to 53 bits, 2^-53 each, and the norm is
/// within 2^-53 too.
const CLOSE: f64 = 4e-16;

#[test]
fn numbers_that_peers_agree_on() {
    let check = |how: Clip, x: &[Vec<f64>], norm: f64, want: &[Vec<f64>], close: f64| {
        let mut own = x.to_vec();
        let report = clip(&mut own, &how);
        assert!((report.norm().unwrap() - norm).abs() <= close * norm, "{how:?}: {:?}", report.norm());
        own.iter().zip(want).for_each(|(a, b)| assert_close(a, b, close, 0.0, "golden"));
    };
    let tf = [vec![-2.0, 0.0, 0.0, 4.0, 0.0, 0.0], vec![1.0, -2.0]];
    check(Clip::global_norm(4.0), &tf, 5.0, &[vec![-1.6, 0.0, 0.0, 3.2, 0.0, 0.0], vec![0.8, -1.6]], CLOSE);
    check(Clip::global_norm(6.0), &tf, 5.0, &tf, 0.0);
    check(Clip::global_norm(6.0), &[vec![0.0; 5]], 0.0, &[vec![0.0; 5]], 0.0);
    let x: [Vec<f64>; 2] = [(1..=100).map(f64::from).collect(), vec![0.001; 10]];
    let norms = [(0.5, 451_287.26), (1.0, 5050.01), (1.5, 1179.3574), (2.0, 581.678_605), (4.0, 212.792_402)];
    for (p, norm) in norms.into_iter().chain([(f64::INFINITY, 100.0)]) {
        // As many digits as PEERS have.
        check(Clip::measure().norm_type(NormType::P(p)), &x, norm, &x, 1e-7);
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
    assert_close(&one(&book, &Clip::per_tensor_norm(2.0)).0, &want, 5e-7, 0.0, "TensorFlow's page");
    let value = one(&[-5.0, 2.0, 3.0, 4.0, 5.0, 6.0], &Clip::value(4.4)).0;
    assert_eq!(value, [-4.4, 2.0, 3.0, 4.0, 4.4, 4.4]);
    let average = one(&[-3.0, 0.0, 0.0, 4.0, 0.0, 0.0], &Clip::average_norm(0.8)).0;
    assert_close(&average, &[-2.88, 0.0, 0.0, 3.84, 0.0, 0.0], CLOSE, 0.0, "average");
    let rows = [-3.0, 0.0, 0.0, 4.0, 0.0, 3.0];
    let mut by_row = rows;
    let mut grads = [GradMut::f64("g", &mut by_row).shape(&[2, 3])];
    cpu::clip(&mut grads, &Clip::per_unit_norm(4.0, Units::OutputFirst)).unwrap();
    assert_close(&by_row, &[-3.0, 0.0, 0.0, 3.2, 0.0, 2.4], CLOSE, 0.0, "rows");
    let mut by_column = rows;
    let mut grads = [GradMut::f64("g", &mut by_column).shape(&[2, 3])];
    cpu::clip(&mut grads, &Clip::per_unit_norm(4.0, Units::over(&[0]))).unwrap();
    assert_close(&by_column, &[-2.4, 0.0, 0.0, 3.2, 0.0, 3.0], CLOSE, 0.0, "columns");
}

/// Root mean squares and per-example sums as Optax has them, and a range that overflows elsewhere.
#[test]
fn blocks_rows_and_ranges_as_the_peers() {
    let mut own = [vec![500.0, 5.0], vec![300.0, 3.0]];
    clip(&mut own, &Clip::block_rms(1.0));
    own.iter().for_each(|g| assert_close(g, &[1.414_142_86, 0.014_141_43], 1e-6, 0.0, "block_rms"));
    let (mut a, mut b) = ([0.0, -0.5, 3.0, 4.0, 5.0, 6.0, 0.0, 0.0], [0.0, 5.0, -3.0, 0.0]);
    let mut grads = [GradMut::f64("a", &mut a).shape(&[4, 2]), GradMut::f64("b", &mut b).shape(&[4, 1])];
    let report = cpu::clip(&mut grads, &Clip::per_row_norm(1.0)).unwrap();
    let column = |i: usize| a.iter().skip(i).step_by(2).sum::<f64>();
    let sums = [column(0), column(1), b.iter().sum()];
    assert_close(&sums, &[1.021_878_37, 0.782_822_59, 0.348_538_20], 1e-7, 0.0, "rows");
    assert_eq!(report.clipped_segments, 2);
    // Squares of these overflow an f64; PyTorch's norm is then infinite and its gradients zeros.
    let (own, report) = one(&[1e200; 100], &Clip::global_norm(1.0));
    assert!((report.norm().unwrap() / 1e201 - 1.0).abs() < 4e-16);
    assert_close(&own, &[0.1; 100], CLOSE, 0.0, "range");
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
    assert_close(&a, &[2.235_956_18, 0.022_359_56], 1e-7, 0.0, "a");
    assert_close(&b, &[4.999_75, 0.049_997_5], 1e-7, 0.0, "b");
    // A gradient of f32 beside a parameter of f64 takes the same path.
    let (mut c, r) = ([3.0f32, 4.0], [0.3, 0.4]);
    let mut grads = [GradMut::new("c", &mut c).shape(&[2]).parameter(&r[..])];
    let report = cpu::clip(&mut grads, &Clip::agc(1.0, Units::OutputFirst)).unwrap();
    assert_eq!((c, report.tensors[0].norm), ([0.3, 0.4], 5.0));
}

/// Every rule in every scope that it goes with, against a program of plain sums. The tolerance: sums of 200
/// squares in f64 lose 2^-46 at most, and everything else a few 2^-53.
#[test]
fn rules_and_scopes_are_those_of_a_plain_program() {
    let mut count = 0;
    for how in plain::clips() {
        for seed in 0..4 {
            let mut tensors = random_set(seed, &how);
            let want = clip_plainly(&tensors, &how);
            let groups: Vec<Option<Group>> = tensors.iter().map(Tensor::group).collect();
            let mut grads: Vec<_> = tensors
                .iter_mut()
                .zip(&groups)
                .map(|(t, group)| {
                    let grad = GradMut::f64("g", &mut t.values).shape(&t.shape).parameter(&t.parameter[..]);
                    if let Some(group) = group { grad.group(group) } else { grad }
                })
                .collect();
            cpu::clip(&mut grads, &how).unwrap();
            for (t, want) in tensors.iter().zip(&want) {
                assert_close(&t.values, want, 2e-14, 1e-300, &format!("{how:?}"));
            }
            count += 1;
        }
    }
    assert!(count > 100, "{count}");
}
