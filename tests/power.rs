//! Norms with any p against f64, from the tiniest elements to the largest, on the CPU and the GPU.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::tolerance::{SEVEN_DIGITS, power_on_adapter, power_on_cpu};
use common::{Distribution, assert_close, data, gpu, norm_as, on_cpu};
use gradclip::{Clip, ClipError, NonFinite, NormType};

#[test]
fn any_p_at_any_magnitude() {
    let gpu = gpu();
    for p in [0.25, 0.5, 1.5, 2.5, 3.0, 4.0, 10.0, 100.0] {
        for kind in [
            Distribution::Uniform(1.0),
            Distribution::Uniform(1e-38),
            Distribution::Uniform(3e38),
            Distribution::Subnormal,
            Distribution::Spike,
            Distribution::Alternating,
            Distribution::Bits,
        ] {
            let tensors: Vec<_> = [1, 5, 300, 16_385, 70_000].map(|n| data(kind, n, 3)).to_vec();
            let n = tensors.iter().map(Vec::len).sum();
            let (clip, want) = (Clip::measure().norm_type(NormType::P(p)), norm_as(&tensors, NormType::P(p)));
            let what = |who: &str| format!("{who}: {kind:?}, p {p}");
            assert_close(on_cpu(&tensors, &clip).0.norm(), [want], power_on_cpu(p), 0.0, &what("CPU"));
            if let Some(gpu) = &gpu {
                let allowed = power_on_adapter(p, n);
                assert_close(gpu.clip(&tensors, &clip).0.norm(), [want], allowed, 0.0, &what(&gpu.name));
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
        let got = on_cpu(&x, &Clip::measure().norm_type(NormType::P(p))).0.norm();
        assert_close(got, [want], SEVEN_DIGITS, 0.0, &format!("p {p}"));
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
    let allowed = power_on_adapter(3.0, 3);
    assert_close(report.norm(), [16f64.cbrt()], allowed, 0.0, "norm");
    assert_eq!((report.non_finite(), after[0][0]), (1, 0.0));
    assert_close([norm_as(&after, NormType::P(3.0))], [1.0], allowed, 0.0, "norm after");
    for p in [0.0, -1.0, f32::NAN] {
        let refused =
            gpu.clipper.prepare(&[], &Clip::measure().norm_type(NormType::P(p.into()))).unwrap_err();
        assert!(matches!(refused, gradclip::PrepareError::Clip(ClipError::NormType { .. })), "{p}");
    }
}
