//! Every rule: the GPU's records and gradients equal the CPU's in every bit, and both agree with the
//! rule's formula in f64 and with the peers' published numbers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::tolerance::{NORM_AFTER, SCALED, SCALED_BY_PARAMETERS, SEVEN_DIGITS};
use common::{
    Distribution, Gpu, Named, Placing, Tensor, assert_all_close, assert_close, bits, data, floats, gpu,
    named, plain, shaped, traced,
};
use gradclip::{Clip, NonFinite, NormType, Report, Rule, Units};
use half::{bf16, f16};

/// On the CPU, and on the GPU to the same bits.
fn clip(gpu: &Gpu, tensors: &[Vec<f32>], clip: &Clip) -> (Report, Vec<Vec<f32>>) {
    let (trace, after) = gpu.same(&named(tensors), clip);
    (trace.report, floats(&after))
}

fn close(got: &[f32], want: &[f64], relative: f64) {
    assert_close(got.iter().copied(), want.iter().copied(), relative, 1e-45, "clipped");
}

fn specials() -> Vec<f32> {
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    vec![nan, inf, -inf, 0.0, -0.0, 1e-40, -1e-45, 3.9999998, 4.0, -4.0000005, 3e38, -3e38, 1.0]
}

#[test]
fn value_keeps_nan_and_limits_infinity() {
    let Some(gpu) = gpu() else { return };
    let (report, after) = clip(&gpu, &[specials(), vec![1.0, 2.0]], &Clip::value(4.0));
    assert!(after[0][0].is_nan());
    let (tiny, below) = (1e-40, 3.9999998);
    assert_eq!(after[0][1..], [4.0, -4.0, 0.0, -0.0, tiny, -1e-45, below, 4.0, -4.0, 4.0, -4.0, 1.0]);
    assert_eq!(after[0][4].to_bits(), (-0.0f32).to_bits());
    assert_eq!(after[1], [1.0, 2.0]);
    assert_eq!((report.non_finite(), report.first_non_finite(), report.clipped_segments), (3, Some("t0"), 1));
    assert!(!report.segments[1].changed, "within the limit nothing is written");
    // TensorFlow and tch-rs.
    let (_, after) = clip(&gpu, &[vec![-5.0, 2.0, 3.0, 4.0, 5.0, 6.0]], &Clip::value(4.4));
    assert_eq!(after[0], [-4.4, 2.0, 3.0, 4.0, 4.4, 4.4]);
    let (_, after) = clip(&gpu, &[vec![2.0, 2.0], vec![8.0], vec![-8.0, -8.0]], &Clip::value(4.0));
    assert_eq!(after.concat(), [2.0, 2.0, 4.0, -4.0, -4.0]);
    // PyTorch: (-50..49)/5 and ten 2s at 2.5.
    let ramp: Vec<f32> = (-50..50).map(|i| i as f32 / 5.0).collect();
    let (_, after) = clip(&gpu, &[ramp.clone(), vec![2.0; 10]], &Clip::value(2.5));
    assert!(after[0].iter().zip(&ramp).all(|(a, b)| *a == b.clamp(-2.5, 2.5)) && after[1] == [2.0; 10]);
    // Unscaled first, by any factor; 0 makes zeros, infinity only measures.
    for unscale in [0.5, 1e-3, 3.0, f32::from_bits(1), 1e38] {
        let (_, after) = clip(&gpu, std::slice::from_ref(&ramp), &Clip::value(2.5).unscale(unscale));
        for (a, b) in after[0].iter().zip(&ramp) {
            assert_eq!(*a, ((f64::from(*b) * f64::from(unscale)) as f32).clamp(-2.5, 2.5));
        }
    }
    assert!(clip(&gpu, std::slice::from_ref(&ramp), &Clip::value(0.0)).1[0].iter().all(|x| *x == 0.0));
    let (report, after) = clip(&gpu, &[specials()], &Clip::value(f32::INFINITY));
    assert!(bits(&after) == bits(&[specials()]) && !report.clipped());
}

#[test]
fn value_under_other_policies() {
    let Some(gpu) = gpu() else { return };
    let other = vec![9.0f32, -1.0];
    for policy in [NonFinite::Skip, NonFinite::Zero, NonFinite::Sanitize, NonFinite::Nan] {
        let (_, after) = clip(&gpu, &[specials(), other.clone()], &Clip::value(4.0).on_non_finite(policy));
        assert_eq!(after[1], [4.0, -1.0], "{policy:?}");
        match policy {
            NonFinite::Skip => assert_eq!(bits(&after[..1]), bits(&[specials()])),
            NonFinite::Zero => assert!(after[0].iter().all(|&x| x == 0.0)),
            NonFinite::Nan => assert!(after[0].iter().all(|x| x.is_nan())),
            _ => assert_eq!(after[0][..4], [0.0; 4]),
        }
    }
}

#[test]
fn value_of_short_types_rounds_the_limit_towards_zero() {
    let Some(gpu) = gpu() else { return };
    let ramp: Vec<f32> = (0..301).map(|i| (i - 150) as f32 / 300.0).collect();
    let tensors =
        named([common::Element::F16, common::Element::Bf16].map(|e| common::Data::rounded(e, &ramp)));
    let (_, after) = gpu.same(&tensors, &Clip::value(0.3));
    // 0.3 is 0x3e99999a: of an f16 and a bf16 the nearest are above it, those before these below.
    let [half, brain] = [f16::from_f32(0.3).to_bits() - 1, bf16::from_f32(0.3).to_bits() - 1];
    let below = [f16::from_bits(half).to_f64(), bf16::from_bits(brain).to_f64()];
    let above = [f16::from_bits(half + 1).to_f64(), bf16::from_bits(brain + 1).to_f64()];
    for (((before, after), limit), above) in tensors.iter().zip(&after).zip(below).zip(above) {
        assert!(limit <= 0.3 && above > 0.3);
        for (before, after) in before.data.values().zip(after.data.values()) {
            assert_eq!(after, before.clamp(-limit, limit));
        }
    }
}

#[test]
fn root_mean_square_and_average() {
    let Some(gpu) = gpu() else { return };
    // Optax: both tensors to an RMS of 1.
    let (_, after) = clip(&gpu, &[vec![500.0, 5.0], vec![300.0, 3.0]], &Clip::block_rms(1.0));
    for t in &after {
        close(t, &[1.414_142_86, 0.014_141_43], SEVEN_DIGITS);
    }
    // TensorFlow's average norm: 5 / 6 is above .8 and below .9.
    let x = vec![-3.0f32, 0.0, 0.0, 4.0, 0.0, 0.0];
    let (_, after) = clip(&gpu, std::slice::from_ref(&x), &Clip::average_norm(0.8));
    close(&after[0], &[-2.88, 0.0, 0.0, 3.84, 0.0, 0.0], SCALED);
    assert_eq!(clip(&gpu, std::slice::from_ref(&x), &Clip::average_norm(0.9)).1, [x]);
    // A constant tensor's RMS is its magnitude, and not above it.
    for c in [0.1f32, 1e-30, 1e30, f32::MAX, f32::from_bits(1)] {
        for n in [1usize, 2, 3, 1000, 16_385] {
            let constant = vec![c; n];
            let (report, after) = clip(&gpu, std::slice::from_ref(&constant), &Clip::block_rms(c));
            assert!(!report.clipped() && after[0] == constant, "{n} × {c:e}");
        }
    }
    // Limits above f32::MAX: RMS 3e38 over 10,000 elements, norm 3e40, limited to 1e38.
    let (report, after) = clip(&gpu, &[vec![3e38; 10_000]], &Clip::block_rms(1e38));
    assert!(report.clipped() && (report.segments[0].norm / 3e40 - 1.0).abs() < NORM_AFTER);
    close(&after[0], &[f64::from(1e38f32); 10_000], SCALED);
    let (report, _) = clip(&gpu, &[vec![3e38; 10_000]], &Clip::block_rms(f32::INFINITY));
    assert!(!report.clipped());
    // Over groups of other sizes: any scope has an RMS.
    let tensors = named([data(Distribution::Uniform(1.0), 500, 1), data(Distribution::Uniform(2.0), 700, 2)]);
    let how = Clip::global_norm(0.3f32).rule(Rule::Rms);
    assert_all_close(&gpu.same(&tensors, &how).1, &plain::clip(&tensors, &how).values, SCALED, "rms");
}

#[test]
fn sign_and_normalize() {
    let Some(gpu) = gpu() else { return };
    let tensors = vec![vec![3.0, -4.0, 0.0, -0.0], vec![1e-30]];
    let (report, after) = clip(&gpu, &tensors, &Clip::sign(0.25));
    assert_eq!(after, [vec![0.25, -0.25, 0.0, 0.0], vec![0.25]]);
    assert_eq!(after[0][3].to_bits(), (-0.0f32).to_bits());
    assert!(report.clipped() && report.norm() == Some(5.0));
    let (report, after) = clip(&gpu, &tensors, &Clip::sign(5.0));
    assert!(!report.clipped() && after == tensors);
    let (report, _) = clip(&gpu, &tensors, &Clip::sign(6.5).norm_type(NormType::One));
    assert!(report.clipped() && report.norm() == Some(7.0));

    for (target, unscale) in
        [(2.5, 1.0), (10.0, 1.0), (5.0, 1.0), (1e-30, 1.0), (1e30, 1.0), (2.5, 0.125), (1e38, 1e-38)]
    {
        let (report, after) = clip(&gpu, &tensors, &Clip::normalize(target).unscale(unscale));
        let factor = target / 5.0;
        let want: Vec<f64> = tensors.concat().iter().map(|x| f64::from(*x) * factor).collect();
        close(&after.concat(), &want, SCALED);
        assert_eq!(report.clipped(), 5.0 * unscale > target);
    }
    // Nothing to scale, and factors above f32::MAX.
    let zeros = vec![vec![0.0; 5]];
    assert_eq!(clip(&gpu, &zeros, &Clip::normalize(1.0)).1, zeros);
    let smallest = vec![vec![f32::from_bits(1), 0.0]];
    assert_eq!(clip(&gpu, &smallest, &Clip::normalize(3e38)).1, [[3e38, 0.0]]);
    for policy in [NonFinite::Skip, NonFinite::Sanitize] {
        let with_nan = vec![vec![3.0, f32::NAN, -4.0]];
        let (_, after) = clip(&gpu, &with_nan, &Clip::normalize(10.0).on_non_finite(policy));
        let (_, signed) = clip(&gpu, &with_nan, &Clip::sign(2.0).on_non_finite(policy));
        if policy == NonFinite::Skip {
            assert!(bits(&after) == bits(&with_nan) && bits(&signed) == bits(&with_nan));
        } else {
            assert_eq!((&after[0][..], &signed[0][..]), (&[6.0, 0.0, -8.0][..], &[2.0, 0.0, -2.0][..]));
        }
    }
}

/// Under a limit of parameters: CPU and GPU to the same bits, and a plain program.
fn agc(gpu: &Gpu, tensors: &[Tensor], clip: &Clip) -> Vec<Vec<f32>> {
    let (_, after) = gpu.same(tensors, clip);
    assert_all_close(&after, &plain::clip(tensors, clip).values, SCALED_BY_PARAMETERS, &format!("{clip:?}"));
    floats(&after)
}

#[test]
fn adaptive_gradient_clipping() {
    let Some(gpu) = gpu() else { return };
    // Optax: clip 1, parameters [1, 2] and [3, 4].
    let tensor = |g: [f32; 2], p: [f32; 2]| Tensor::new("w", g.to_vec()).shape(&[2]).parameter(p.to_vec());
    let weights = [tensor([500.0, 5.0], [1.0, 2.0]), tensor([300.0, 3.0], [3.0, 4.0])];
    let after = agc(&gpu, &weights, &Clip::agc(1.0, Units::OutputLast));
    close(&after[0], &[2.235_956_18, 0.022_359_56], SEVEN_DIGITS);
    close(&after[1], &[4.999_75, 0.049_997_5], SEVEN_DIGITS);

    let shapes: [&[u64]; 6] = [&[24, 17], &[8, 5, 6], &[3, 3, 8, 12], &[40], &[600, 300], &[2, 700]];
    let mut weights = shaped(&shapes, |i, n| data(Distribution::Uniform(0.1), n, i as u64));
    for (i, weight) in weights.iter_mut().enumerate() {
        let n = weight.data.len();
        let mut p = data(Distribution::Uniform(0.5), n, 50 + i as u64);
        // Small and zero parameters, so that the least norm of 1e-3 counts.
        p[..n / 3].fill(if i % 2 == 0 { 0.0 } else { 1e-6 });
        weight.parameter = Some(p.into());
    }
    for units in [Units::OutputFirst, Units::OutputLast] {
        for eps in [1e-3, 0.05] {
            agc(&gpu, &weights, &Clip::agc(0.1f32, units).rule(Rule::Agc { eps }));
        }
    }
    // The whole tensor as one segment.
    agc(&gpu, &weights[..1], &Clip::per_tensor_norm(0.1f32).rule(Rule::Agc { eps: 1e-3 }));
}

/// Groups that are not met in the order of their tensors: each is limited by its own parameters.
#[test]
fn adaptive_gradient_clipping_of_groups() {
    let Some(gpu) = gpu() else { return };
    let groups = [Named::new("a", 0.1f32), Named::new("b", 0.2f32)];
    let tensor = |i: usize| {
        let p = data(Distribution::Uniform(1.0 + i as f32), 30 + i, 90 + i as u64);
        Tensor::new("w", data(Distribution::Uniform(1.0), 30 + i, i as u64)).parameter(p).group(groups[i % 2])
    };
    let tensors: Vec<Tensor> = (0..5).map(tensor).collect();
    let clip = Clip::per_group_norm(1.0).rule(Rule::Agc { eps: 1e-3 });
    agc(&gpu, &tensors, &clip);
    assert_eq!(plain::clip(&tensors, &clip).clipped, 2);
}

/// Parameters that are not finite limit nothing: what the policy says of such gradients happens.
#[test]
fn parameters_that_are_not_finite() {
    let Some(gpu) = gpu() else { return };
    let before = [vec![3.0f32, 4.0], vec![3.0, 4.0]];
    let parameters = [vec![1.0f32, 0.0], vec![0.0, f32::NAN]];
    let cases = [
        (NonFinite::Skip, [3.0f32, 4.0]),
        (NonFinite::Zero, [0.0, 0.0]),
        (NonFinite::Nan, [f32::NAN; 2]),
        // The finite parameters: a norm of 0, so of 1e-3.
        (NonFinite::Sanitize, [3.0 * 2e-5, 4.0 * 2e-5]),
    ];
    for (policy, want) in cases {
        let clip = Clip::per_tensor_norm(0.1).rule(Rule::Agc { eps: 1e-3 }).on_non_finite(policy);
        let tensor = |i: usize| Tensor::new("w", &before[i]).parameter(&parameters[i]);
        let (trace, after) = traced(&[tensor(0), tensor(1)], &clip).unwrap();
        let (report, after) = (trace.report, floats(&after));
        close(&after[0], &[0.06, 0.08], SCALED_BY_PARAMETERS);
        assert_close(after[1].clone(), want, SCALED_BY_PARAMETERS, 0.0, &format!("{policy:?}"));
        assert_eq!(report.segments[1].first_non_finite, Some(1), "{policy:?}");
        assert_eq!(report.segments[1].non_finite, 1, "{policy:?}");
        assert_eq!(report.skipped_steps, u64::from(policy == NonFinite::Skip));
        let placed = gpu.place(&[tensor(0), tensor(1)], Placing::APART);
        let there = gpu.run(&gpu.clipper.prepare(&placed.grads, &clip).unwrap());
        assert_eq!(
            format!("{:?}", there.segments),
            format!("{:?}", report.segments),
            "{policy:?} on {}",
            gpu.name
        );
        let left: Vec<_> = placed.read(&gpu).unwrap().iter().map(common::Data::floats).collect();
        assert!(bits(&left) == bits(&after), "{policy:?} on {}", gpu.name);
    }
}
