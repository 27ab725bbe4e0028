//! Norms with any p against f64, from the tiniest elements to the largest, on the CPU and the GPU.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Kind, data, gpu};
use gradclip::cpu::{self, GradMut};
use gradclip::{Clip, ClipError, NonFinite, NormType, Report};

fn exact(tensors: &[Vec<f32>], p: f64) -> f64 {
    let largest = tensors.iter().flatten().fold(0.0f64, |a, &x| a.max(f64::from(x).abs()));
    if largest == 0.0 {
        return 0.0;
    }
    let powers: f64 = tensors.iter().flatten().map(|&x| (f64::from(x).abs() / largest).powf(p)).sum();
    largest * powers.powf(1.0 / p)
}

fn on_cpu(tensors: &[Vec<f32>], clip: &Clip) -> Report {
    let mut tensors = tensors.to_vec();
    let mut grads: Vec<_> = tensors.iter_mut().map(|t| GradMut::new("t", t)).collect();
    cpu::clip(&mut grads, clip).unwrap()
}

/// Relative error allowed. The logarithm of the sum of powers is at most log2 n / p and has a
/// relative error of a few 2^-23 (WGSL: 3 ulp, or 2^-21 absolute near 1); the norm's relative error
/// is ln 2 times its absolute one. Each power adds 2^-21 p |log2 ratio| at most where it still
/// counts (|log2 ratio| p < 24), which the root divides by p, and the sum of n terms by halves
/// 2^-20. The CPU rounds only its records, to f32.
fn tolerance(n: usize, p: f64, gpu: bool) -> f64 {
    let log = (n as f64).log2() / p;
    let unit = 2f64.powi(-24);
    if gpu { unit * (8.0 * log + 16.0 + 8.0 * 24.0 / p + 16.0 / p) } else { unit * (2.0 + 3.0 / p) }
}

#[test]
fn any_p_at_any_magnitude() {
    let gpu = gpu();
    for p in [0.25, 0.5, 1.5, 2.5, 3.0, 4.0, 10.0, 100.0] {
        for kind in [
            Kind::Uniform(1.0),
            Kind::Uniform(1e-38),
            Kind::Uniform(3e38),
            Kind::Subnormal,
            Kind::Spike,
            Kind::Alternating,
            Kind::Bits,
        ] {
            let tensors: Vec<_> = [1, 5, 300, 16_385, 70_000].map(|n| data(kind, n, 3)).to_vec();
            let n = tensors.iter().map(Vec::len).sum();
            let want = exact(&tensors, p);
            let clip = Clip::measure().norm_type(NormType::P(p));
            let check = |who: &str, report: Report, gpu: bool| {
                let got = report.norm().unwrap();
                let error = (got - want).abs() / want;
                let allowed = tolerance(n, p, gpu);
                assert!(
                    error <= allowed,
                    "{who}: {kind:?}, p {p}: {got:e}, not {want:e}: {error:e} > {allowed:e}"
                );
            };
            check("CPU", on_cpu(&tensors, &clip), false);
            if let Some(gpu) = &gpu {
                check(&gpu.name, gpu.clip(&tensors, &clip).0, true);
            }
        }
    }
}

#[test]
fn the_numbers_that_pytorch_users_know() {
    let x = [(1..=100).map(|i| i as f32).collect(), vec![0.001; 10]];
    for (p, want) in
        [(0.5, 451_287.26), (1.0, 5050.01), (1.5, 1179.3574), (2.0, 581.678_605), (4.0, 212.792_402)]
    {
        let got = on_cpu(&x, &Clip::measure().norm_type(NormType::P(p))).norm().unwrap();
        assert!((got / want - 1.0).abs() < 1e-6, "{p}: {got}");
    }
}

#[test]
fn edges() {
    let Some(gpu) = gpu() else { return };
    let clip = Clip::global_norm(1.0).norm_type(NormType::P(3.0));
    let (report, after) = gpu.clip(&[vec![0.0; 100]], &clip);
    assert_eq!((report.norm(), report.clipped()), (Some(0.0), false));
    assert_eq!(after, [vec![0.0; 100]]);
    let (report, after) =
        gpu.clip(&[vec![f32::INFINITY, 2.0, -2.0]], &clip.on_non_finite(NonFinite::Sanitize));
    assert!((report.norm().unwrap() / 16f64.cbrt() - 1.0).abs() < 1e-5);
    assert_eq!((report.non_finite(), after[0][0]), (1, 0.0));
    let cubes: f64 = after[0].iter().map(|&x| f64::from(x.abs()).powi(3)).sum();
    assert!((cubes.cbrt() - 1.0).abs() < 1e-5);
    for p in [0.0, -1.0, f32::NAN] {
        let refused =
            gpu.clipper.prepare(&[], &Clip::measure().norm_type(NormType::P(p.into()))).unwrap_err();
        assert!(matches!(refused, gradclip::PrepareError::Clip(ClipError::NormType { .. })), "{p}");
    }
}
