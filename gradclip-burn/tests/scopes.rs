//! Groups by path in every scope, and rows: against f64 on the host, and bit for bit against the CPU path.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use burn::module::{Module, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use gradclip_burn::{
    Clip, ClipError, Clipper, Error, Group, History, PrepareError, Report, SegmentReport, Units,
};

use common::{Copied, assert_same_bits, gpu, mlp, no_group, norm, on_cpu, read, same_as_cpu, tensor};

/// The norm is off by 0.65 ulp; the threshold, its quotient and the product by half a one each.
const ULPS: f64 = 2.15;
/// An ulp is at most this much of an `f32`: 2^-23.
const ULP: f64 = f32::EPSILON as f64;

/// README's line.
fn biases_excluded(path: &str) -> Option<Group> {
    path.ends_with("bias").then(|| Group::excluded("biases"))
}

/// The first layer's weights by themselves, all biases excluded.
fn first_by_itself(path: &str) -> Option<Group> {
    if path == "layers.0.weight" { Some(Group::new("first", 0.01)) } else { biases_excluded(path) }
}

fn some(copied: &[Copied], of: impl Fn(&str) -> bool) -> Vec<Copied> {
    copied.iter().filter(|c| of(&c.path)).cloned().collect()
}

fn is_bias(path: &str) -> bool {
    path.ends_with("bias")
}

/// That each element is `factor` times what it was, to a few roundings.
#[track_caller]
fn assert_scaled(after: &[Copied], before: &[Copied], factor: f64) {
    for (a, b) in after.iter().zip(before) {
        for (&given, &x) in a.values.iter().zip(&b.values) {
            let required = f64::from(x) * factor;
            let allowed = ULPS * ULP * required.abs();
            assert!((f64::from(given) - required).abs() <= allowed, "{}: {given} {required}", a.path);
        }
    }
}

#[track_caller]
fn segment<'a>(report: &'a Report, name: &str) -> &'a SegmentReport {
    report.segments.iter().find(|s| s.name.as_deref() == Some(name)).unwrap()
}

#[test]
fn excluded_biases_are_in_no_norm_and_keep_every_bit() {
    let Some(gpu) = gpu() else { return };
    let model = mlp(gpu);
    for scale in [1e3, 1e-3] {
        let clipper =
            Clipper::new(&gpu.device, &gpu.setup, Clip::global_norm(1.0)).unwrap().groups(biases_excluded);
        let mut grads = model.grads(3, scale, &gpu.device);
        let before = read(&model, &grads);
        clipper.clip(&model, &mut grads).unwrap();
        let after = read(&model, &grads);
        let [weights, biases] = [false, true].map(|bias| some(&before, |path| is_bias(path) == bias));
        assert_eq!((weights.len(), biases.len()), (3, 3));
        let exact = norm(&weights);
        assert!(norm(&before) > 1.001 * exact, "with the biases it would show");
        let factor = (1.0 / exact).min(1.0);
        assert_eq!(factor < 1.0, scale > 1.0);
        assert_same_bits("biases", &some(&after, is_bias), &biases);
        assert_scaled(&some(&after, |path| !is_bias(path)), &weights, factor);
        let report = clipper.report().unwrap();
        assert!((report.norm().unwrap() / exact - 1.0).abs() < 0.65 * ULP, "{report:?}");
        assert_eq!(report.coefficient().unwrap() < 1.0, factor < 1.0);
        let out = segment(&report, "biases");
        assert!(out.excluded && !out.changed && !out.clipped, "{out:?}");
        assert!((out.norm / norm(&biases) - 1.0).abs() < 0.65 * ULP, "{out:?}");
    }
}

#[test]
fn a_threshold_set_later_keeps_exclusions_and_thresholds_of_groups() {
    let Some(gpu) = gpu() else { return };
    let model = mlp(gpu);
    let clip = |clipper: &Clipper| {
        let mut grads = model.grads(3, 1e3, &gpu.device);
        let before = read(&model, &grads);
        clipper.clip(&model, &mut grads).unwrap();
        (before, read(&model, &grads))
    };
    let new = |clip| Clipper::new(&gpu.device, &gpu.setup, clip).unwrap();
    let clipper = new(Clip::global_norm(1.0)).groups(biases_excluded);
    for threshold in [1.0, 0.25, 4.0] {
        clipper.set_threshold(threshold).unwrap();
        let (before, after) = clip(&clipper);
        assert_same_bits("biases", &some(&after, is_bias), &some(&before, is_bias));
        let [before, after] = [before, after].map(|all| some(&all, |path| !is_bias(path)));
        assert_scaled(&after, &before, f64::from(threshold) / norm(&before));
    }
    let clipper = new(Clip::per_group_norm(0.1)).groups(first_by_itself);
    for threshold in [0.1, 0.05f32] {
        clipper.set_threshold(threshold).unwrap();
        let (before, after) = clip(&clipper);
        assert_same_bits("biases", &some(&after, is_bias), &some(&before, is_bias));
        let first = |path: &str| path == "layers.0.weight";
        assert_scaled(&some(&after, first), &some(&before, first), 0.01 / norm(&some(&before, first)));
        let others = |path: &str| !first(path) && !is_bias(path);
        let factor = f64::from(threshold) / norm(&some(&before, others));
        assert_scaled(&some(&after, others), &some(&before, others), factor);
        let report = clipper.report().unwrap();
        assert_eq!(segment(&report, "first").threshold, f64::from(0.01f32));
        assert_eq!(segment(&report, "biases").threshold, f64::INFINITY);
    }
    // Excluded ones are unscaled like the others.
    clipper.set_unscale(0.5).unwrap();
    let (before, after) = clip(&clipper);
    for (a, b) in some(&after, is_bias).iter().zip(&some(&before, is_bias)) {
        let halves: Vec<f32> = b.values.iter().map(|v| v * 0.5).collect();
        assert_eq!(a.values, halves, "{}", a.path);
    }
    assert_eq!(segment(&clipper.report().unwrap(), "first").threshold, f64::from(0.01f32));
}

#[derive(Module, Debug)]
struct Rows {
    matrix: Param<Tensor<2>>,
    vector: Param<Tensor<1>>,
}

impl Rows {
    const COUNT: usize = 500;

    fn new(gpu: &common::Gpu) -> Rows {
        Rows {
            matrix: Param::from_tensor(tensor(1, [Rows::COUNT, 5], 1.0, &gpu.device)),
            vector: Param::from_tensor(tensor(2, [Rows::COUNT], 1.0, &gpu.device)),
        }
    }

    fn grads(&self, gpu: &common::Gpu) -> GradientsParams {
        let device = gpu.device.clone().inner();
        let mut grads = GradientsParams::new();
        grads.register(self.matrix.id, tensor::<2>(3, [Rows::COUNT, 5], 1.0, &device));
        grads.register(self.vector.id, tensor::<1>(4, [Rows::COUNT], 1.0, &device));
        grads
    }
}

#[track_caller]
fn assert_names(error: &Error, parameter: &str) {
    let Error::Prepare(PrepareError::Clip(ClipError::Tensor { tensor, .. })) = error else {
        panic!("{error:?}")
    };
    assert_eq!(tensor, parameter);
    let words = error.to_string();
    assert!(words.contains("`first` with threshold 0.01") && words.contains("Scope::Group"), "{words}");
}

#[test]
fn a_groups_threshold_is_refused_where_groups_would_share_a_norm() {
    let Some(gpu) = gpu() else { return };
    let model = mlp(gpu);
    let clipper =
        Clipper::new(&gpu.device, &gpu.setup, Clip::global_norm(1.0)).unwrap().groups(first_by_itself);
    let mut grads = model.grads(3, 1e3, &gpu.device);
    let before = read(&model, &grads);
    assert_names(&clipper.clip(&model, &mut grads).unwrap_err(), "layers.0.weight");
    assert_eq!(grads.len(), 6);
    assert_same_bits("after an error", &read(&model, &grads), &before);
    // A scope in which it means something, and the clipper goes on.
    clipper.set_clip(Clip::per_group_norm(1.0)).unwrap();
    clipper.clip(&model, &mut grads).unwrap();
    assert_eq!(clipper.report().unwrap().step, 1);

    let model = Rows::new(gpu);
    let clipper = Clipper::new(&gpu.device, &gpu.setup, Clip::per_row_norm(1.0))
        .unwrap()
        .groups(|path| (path == "vector").then(|| Group::new("first", 0.01)));
    let mut grads = model.grads(gpu);
    let before = read(&model, &grads);
    assert_names(&clipper.clip(&model, &mut grads).unwrap_err(), "vector");
    assert_eq!(grads.len(), 2);
    assert_same_bits("after an error", &read(&model, &grads), &before);
}

#[test]
fn each_tensor_of_a_group_has_the_groups_threshold() {
    let Some(gpu) = gpu() else { return };
    let model = mlp(gpu);
    let clip = Clip::per_tensor_norm(0.1);
    let clipper = Clipper::new(&gpu.device, &gpu.setup, clip).unwrap().groups(|path| match path {
        "layers.1.bias" => Some(Group::excluded("left")),
        _ => path.starts_with("layers.0").then(|| Group::new("first", 0.01)),
    });
    let mut grads = model.grads(3, 1e3, &gpu.device);
    let before = read(&model, &grads);
    clipper.clip(&model, &mut grads).unwrap();
    let after = read(&model, &grads);
    for (a, b) in after.iter().zip(&before) {
        let threshold = match a.path.as_str() {
            "layers.0.weight" | "layers.0.bias" => 0.01,
            "layers.1.bias" => f64::INFINITY,
            _ => 0.1,
        };
        let exact = norm(std::slice::from_ref(b));
        assert!(exact > 0.1, "{}: {exact}", a.path);
        assert_scaled(std::slice::from_ref(a), std::slice::from_ref(b), (threshold / exact).min(1.0));
    }
    assert_same_bits("left", &after[3..4], &before[3..4]);
}

#[test]
fn groups_have_the_bits_of_the_cpu_path_in_every_scope() {
    let Some(gpu) = gpu() else { return };
    same_as_cpu(gpu, Clip::global_norm(0.1), 2, biases_excluded);
    same_as_cpu(gpu, Clip::per_group_norm(0.1), 2, first_by_itself);
    same_as_cpu(gpu, Clip::per_tensor_norm(0.1), 2, first_by_itself);
    same_as_cpu(gpu, Clip::per_unit_norm(0.1, Units::OutputLast), 2, first_by_itself);
    same_as_cpu(gpu, Clip::value(0.05), 2, first_by_itself);
    // Without its last layer, as the papers of AGC have it.
    let last_excluded = |path: &str| path.starts_with("layers.2").then(|| Group::excluded("head"));
    same_as_cpu(gpu, Clip::agc(0.01, Units::OutputLast), 2, last_excluded);
}

#[test]
fn the_norm_of_a_row_is_at_most_its_threshold() {
    let Some(gpu) = gpu() else { return };
    let model = Rows::new(gpu);
    let clip = Clip::per_row_norm(0.3f32);
    let clipper = Clipper::new(&gpu.device, &gpu.setup, clip).unwrap();
    let mut grads = model.grads(gpu);
    let mut required = read(&model, &grads);
    on_cpu(&mut required, &[], &clip, &mut History::default(), no_group);
    clipper.clip(&model, &mut grads).unwrap();
    let given = read(&model, &grads);
    assert_same_bits("rows", &given, &required);
    let [matrix, vector] = [0, 1].map(|i| &given[i].values);
    let most = f64::from(0.3f32).powi(2);
    let mut clipped = 0;
    for (row, last) in matrix.chunks(5).zip(vector) {
        // Squares of f32 are exact in f64, and five sums of them off by less than 2^-50. Rounded to
        // nearest, every second row would exceed C, most of them by more than 2^-26.
        let squares: f64 = row.iter().chain([last]).map(|&v| f64::from(v).powi(2)).sum();
        assert!(squares <= most * (1.0 + 2f64.powi(-50)), "{squares} {most}");
        clipped += usize::from(squares > 0.999 * most);
    }
    assert!(clipped > Rows::COUNT / 2, "{clipped} rows were clipped");
}
