//! Every rule: the GPU's records and gradients equal the CPU's in every bit, and both agree with the
//! rule's formula in f64 and with the peers' published numbers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Gpu, Kind, bits, contents, data, gpu};
use gradclip::cpu::{self, GradMut};
use gradclip::layout::Outcome;
use gradclip::{Clip, DType, Grad, Group, NonFinite, NormType, Report, Rule, Units};
use half::{bf16, f16};

/// On the CPU, and on the GPU to the same bits.
fn clip(gpu: &Gpu, tensors: &[Vec<f32>], clip: &Clip) -> (Report, Vec<Vec<f32>>) {
    let mut after = tensors.to_vec();
    let mut grads: Vec<_> =
        after.iter_mut().enumerate().map(|(i, t)| GradMut::new(format!("t{i}"), t)).collect();
    let trace = cpu::clip_traced(&mut grads, clip).unwrap();
    let grads = gpu.separate(tensors);
    let pass = gpu.clipper.prepare(&grads, clip).unwrap();
    let report = gpu.run(&pass);
    assert_eq!(format!("{report:?}"), format!("{:?}", trace.report), "{clip:?} on {}", gpu.name);
    let words = |o: &[Outcome]| bytemuck::cast_slice::<_, u32>(o).to_vec();
    assert_eq!(words(&gpu.read::<Outcome>(pass.outcomes())[..trace.outcomes.len()]), words(&trace.outcomes));
    let written = contents(gpu, &grads, tensors);
    let plain = |t: &[Vec<f32>]| -> Vec<u32> {
        // NaN is NaN, whatever its payload.
        t.iter().flatten().map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }).collect()
    };
    assert!(plain(&written) == plain(&after), "{clip:?}: gradients on {}", gpu.name);
    (report, after)
}

/// Within a relative error, or the rounding of a subnormal.
fn close(got: &[f32], want: &[f64], relative: f64) {
    assert_eq!(got.len(), want.len());
    for (g, w) in got.iter().zip(want) {
        assert!((f64::from(*g) - w).abs() <= w.abs() * relative + 1e-45, "{got:?} is not {want:?}");
    }
}

/// Norm, quotient, scale and product: each at most one rounding of 2^-24.
const FEW_ROUNDINGS: f64 = 2.5e-7;

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
    let mut halves: Vec<f16> = ramp.iter().map(|&x| f16::from_f32(x)).collect();
    let mut brains: Vec<bf16> = ramp.iter().map(|&x| bf16::from_f32(x)).collect();
    let buffers = [gpu.buffer(bytemuck::cast_slice(&halves)), gpu.buffer(bytemuck::cast_slice(&brains))];
    let dtypes = [DType::F16, DType::Bf16];
    let grads: Vec<_> =
        buffers.iter().zip(dtypes).map(|(b, d)| Grad::range("g", b, 0, 301).dtype(d)).collect();
    gpu.run(&gpu.clipper.prepare(&grads, &Clip::value(0.3)).unwrap());
    let (before_halves, before_brains) = (halves.clone(), brains.clone());
    cpu::clip(&mut [GradMut::f16("h", &mut halves), GradMut::bf16("b", &mut brains)], &Clip::value(0.3))
        .unwrap();
    // 0.3 is 0x3e99999a: of an f16 and a bf16 the nearest are above it, those before these below.
    let limit = (
        f16::from_bits(f16::from_f32(0.3).to_bits() - 1),
        bf16::from_bits(bf16::from_f32(0.3).to_bits() - 1),
    );
    assert!(limit.0.to_f64() <= 0.3 && f16::from_bits(limit.0.to_bits() + 1).to_f64() > 0.3);
    assert!(limit.1.to_f64() <= 0.3 && bf16::from_bits(limit.1.to_bits() + 1).to_f64() > 0.3);
    for (after, before) in halves.iter().zip(&before_halves) {
        assert_eq!(
            *after,
            if before.to_f32().abs() > limit.0.to_f32() { limit.0.copysign(*before) } else { *before }
        );
    }
    for (after, before) in brains.iter().zip(&before_brains) {
        assert_eq!(
            *after,
            if before.to_f32().abs() > limit.1.to_f32() { limit.1.copysign(*before) } else { *before }
        );
    }
    assert_eq!(gpu.read::<f16>(&buffers[0])[..301], halves);
    assert_eq!(gpu.read::<bf16>(&buffers[1])[..301], brains);
}

#[test]
fn root_mean_square_and_average() {
    let Some(gpu) = gpu() else { return };
    // Optax: both tensors to an RMS of 1.
    let (_, after) = clip(&gpu, &[vec![500.0, 5.0], vec![300.0, 3.0]], &Clip::block_rms(1.0));
    for t in &after {
        close(t, &[1.414_142_86, 0.014_141_43], 1e-6);
    }
    // TensorFlow's average norm: 5 / 6 is above .8 and below .9.
    let x = vec![-3.0f32, 0.0, 0.0, 4.0, 0.0, 0.0];
    let (_, after) = clip(&gpu, std::slice::from_ref(&x), &Clip::average_norm(0.8));
    close(&after[0], &[-2.88, 0.0, 0.0, 3.84, 0.0, 0.0], FEW_ROUNDINGS);
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
    assert!(report.clipped() && (report.segments[0].norm / 3e40 - 1.0).abs() < 1e-6);
    assert!(after[0].iter().all(|x| (x / 1e38 - 1.0).abs() < 3e-7), "{}", after[0][0]);
    let (report, _) = clip(&gpu, &[vec![3e38; 10_000]], &Clip::block_rms(f32::INFINITY));
    assert!(!report.clipped());
    // Over groups of other sizes: any scope has an RMS.
    let data = vec![data(Kind::Uniform(1.0), 500, 1), data(Kind::Uniform(2.0), 700, 2)];
    let clip_all = Clip::global_norm(0.3).rule(Rule::Rms);
    let (_, after) = clip(&gpu, &data, &clip_all);
    let rms = common::norm(&data) / 1200f64.sqrt();
    let want: Vec<f64> = data.concat().iter().map(|x| f64::from(*x) * 0.3 / rms).collect();
    close(&after.concat(), &want, FEW_ROUNDINGS);
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
        close(&after.concat(), &want, FEW_ROUNDINGS);
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

/// Gradients, parameters and shape of one tensor.
type Weight = (Vec<f32>, Vec<f32>, Vec<u64>);

fn agc(gpu: &Gpu, weights: &[Weight], clip: &Clip) -> Vec<Vec<f32>> {
    let mut after: Vec<Vec<f32>> = weights.iter().map(|w| w.0.clone()).collect();
    let mut grads: Vec<_> = after
        .iter_mut()
        .zip(weights)
        .map(|(g, (_, p, shape))| GradMut::new("w", g).shape(shape).parameter(&p[..]))
        .collect();
    let trace = cpu::clip_traced(&mut grads, clip).unwrap();
    let before: Vec<Vec<f32>> = weights.iter().map(|w| w.0.clone()).collect();
    let parameters: Vec<Vec<f32>> = weights.iter().map(|w| w.1.clone()).collect();
    // Parameters in an arena, off the alignment.
    let arena = gpu.arena(&parameters, 5, 2);
    let mut at = 20;
    let grads: Vec<Grad> = gpu
        .separate(&before)
        .into_iter()
        .zip(weights)
        .map(|(g, (_, p, shape))| {
            let grad = g.shape(shape).parameter(arena[0].buffer(), at, DType::F32);
            at += (p.len() as u64 + 2) * 4;
            grad
        })
        .collect();
    let pass = gpu.clipper.prepare(&grads, clip).unwrap();
    gpu.run(&pass);
    let words = |o: &[Outcome]| bytemuck::cast_slice::<_, u32>(o).to_vec();
    assert_eq!(words(&gpu.read::<Outcome>(pass.outcomes())[..trace.outcomes.len()]), words(&trace.outcomes));
    assert!(bits(&contents(gpu, &grads, &before)) == bits(&after), "{clip:?}: gradients on {}", gpu.name);
    after
}

#[test]
fn adaptive_gradient_clipping() {
    let Some(gpu) = gpu() else { return };
    // Optax: clip 1, parameters [1, 2] and [3, 4].
    let weights = [(vec![500.0, 5.0], vec![1.0, 2.0], vec![2]), (vec![300.0, 3.0], vec![3.0, 4.0], vec![2])];
    let after = agc(&gpu, &weights, &Clip::agc(1.0, Units::OutputLast));
    close(&after[0], &[2.235_956_18, 0.022_359_56], 1e-6);
    close(&after[1], &[4.999_75, 0.049_997_5], 1e-6);

    let shapes: [&[u64]; 6] = [&[24, 17], &[8, 5, 6], &[3, 3, 8, 12], &[40], &[600, 300], &[2, 700]];
    let weights: Vec<Weight> = shapes
        .iter()
        .zip(0..)
        .map(|(shape, i)| {
            let n = shape.iter().product::<u64>() as usize;
            let mut p = data(Kind::Uniform(0.5), n, 50 + i);
            // Small and zero parameters, so that the least norm of 1e-3 counts.
            p[..n / 3].fill(if i % 2 == 0 { 0.0 } else { 1e-6 });
            (data(Kind::Uniform(0.1), n, i), p, shape.to_vec())
        })
        .collect();
    for units in [Units::OutputFirst, Units::OutputLast] {
        for eps in [1e-3, 0.05] {
            let clip = Clip::agc(0.1, units).rule(Rule::Agc { eps });
            let after = agc(&gpu, &weights, &clip);
            for ((g, p, shape), after) in weights.iter().zip(&after) {
                check_agc(g, p, shape, units, eps, after);
            }
        }
    }
    // The whole tensor as one segment.
    let after = agc(&gpu, &weights[..1], &Clip::per_tensor_norm(0.1).rule(Rule::Agc { eps: 1e-3 }));
    let factor = 0.1 * common::norm(std::slice::from_ref(&weights[0].1))
        / common::norm(std::slice::from_ref(&weights[0].0));
    let want: Vec<f64> = weights[0].0.iter().map(|x| f64::from(*x) * factor).collect();
    close(&after[0], &want, 4e-7);
}

/// g · min(1, clip · max(‖p‖, eps) / max(‖g‖, 1e-6)) in f64; one rounding of the limit more.
fn check_agc(g: &[f32], p: &[f32], shape: &[u64], units: Units, eps: f64, after: &[f32]) {
    let n = g.len();
    let outputs = match units {
        Units::OutputFirst if shape.len() > 1 => shape[0] as usize,
        Units::OutputLast if shape.len() == 3 => (shape[1] * shape[2]) as usize,
        Units::OutputLast if shape.len() > 1 => shape[shape.len() - 1] as usize,
        _ => 1,
    };
    let unit = |e: usize| if units == Units::OutputFirst { e / (n / outputs) } else { e % outputs };
    let norms = |v: &[f32]| -> Vec<f64> {
        let mut squares = vec![0.0f64; outputs];
        v.iter().enumerate().for_each(|(e, x)| squares[unit(e)] += f64::from(*x).powi(2));
        squares.iter().map(|s| s.sqrt()).collect()
    };
    let (of_g, of_p) = (norms(g), norms(p));
    for (e, (b, a)) in g.iter().zip(after).enumerate() {
        let limit = f64::from(0.1f32) * of_p[unit(e)].max(eps);
        let want = f64::from(*b) * (limit / of_g[unit(e)].max(1e-6)).min(1.0);
        assert!((f64::from(*a) - want).abs() <= want.abs() * 4e-7, "{shape:?} {units:?} [{e}]: {a} {want}");
    }
}

/// Groups that are not met in the order of their tensors: each is limited by its own parameters.
#[test]
fn adaptive_gradient_clipping_of_groups() {
    let Some(gpu) = gpu() else { return };
    let groups = [Group::new("a", 0.1), Group::new("b", 0.2)];
    let of = [0usize, 1, 0, 1, 0];
    let before: Vec<Vec<f32>> = (0..5).map(|i| data(Kind::Uniform(1.0), 30 + i, i as u64)).collect();
    let parameters: Vec<Vec<f32>> =
        (0..5).map(|i| data(Kind::Uniform(1.0 + i as f32), 30 + i, 90 + i as u64)).collect();
    let clip = Clip::per_group_norm(1.0).rule(Rule::Agc { eps: 1e-3 });
    let mut after = before.clone();
    let mut grads: Vec<_> = after
        .iter_mut()
        .zip(&parameters)
        .zip(of)
        .map(|((g, p), group)| GradMut::new("w", g).parameter(&p[..]).group(&groups[group]))
        .collect();
    cpu::clip(&mut grads, &clip).unwrap();
    let own = |tensors: &[Vec<f32>], group: usize| -> f64 {
        let members: Vec<_> = (0..5).filter(|&i| of[i] == group).map(|i| tensors[i].clone()).collect();
        common::norm(&members)
    };
    for (i, group) in of.into_iter().enumerate() {
        let limit = [f64::from(0.1f32), f64::from(0.2f32)][group] * own(&parameters, group);
        let factor = (limit / own(&before, group)).min(1.0);
        assert!(factor < 1.0);
        let want: Vec<f64> = before[i].iter().map(|x| f64::from(*x) * factor).collect();
        close(&after[i], &want, 4e-7);
    }
    let buffers = gpu.separate(&parameters);
    let grads: Vec<Grad> = gpu
        .separate(&before)
        .into_iter()
        .zip(&buffers)
        .zip(of)
        .map(|((g, p), group)| g.parameter(p.buffer(), 0, DType::F32).group(&groups[group]))
        .collect();
    gpu.run(&gpu.clipper.prepare(&grads, &clip).unwrap());
    assert!(bits(&contents(&gpu, &grads, &before)) == bits(&after), "gradients on {}", gpu.name);
}

/// Parameters that are not finite limit nothing: what the policy says of such gradients happens.
#[test]
fn parameters_that_are_not_finite() {
    let Some(gpu) = gpu() else { return };
    let before = vec![vec![3.0f32, 4.0], vec![3.0, 4.0]];
    let parameters = vec![vec![1.0f32, 0.0], vec![0.0, f32::NAN]];
    let cases = [
        (NonFinite::Skip, [3.0f32, 4.0]),
        (NonFinite::Zero, [0.0, 0.0]),
        (NonFinite::Nan, [f32::NAN; 2]),
        // The finite parameters: a norm of 0, so of 1e-3.
        (NonFinite::Sanitize, [3.0 * 2e-5, 4.0 * 2e-5]),
    ];
    for (policy, want) in cases {
        let clip = Clip::per_tensor_norm(0.1).rule(Rule::Agc { eps: 1e-3 }).on_non_finite(policy);
        let mut after = before.clone();
        let mut grads: Vec<_> =
            after.iter_mut().zip(&parameters).map(|(g, p)| GradMut::new("w", g).parameter(&p[..])).collect();
        let report = cpu::clip(&mut grads, &clip).unwrap();
        close(&after[0], &[0.06, 0.08], 4e-7);
        let same = |(a, w): (&f32, &f32)| (a.is_nan() && w.is_nan()) || (a - w).abs() <= w * 4e-7;
        assert!(after[1].iter().zip(&want).all(same), "{policy:?}: {:?}", after[1]);
        assert_eq!(report.segments[1].first_non_finite, Some(1), "{policy:?}");
        assert_eq!(report.segments[1].non_finite, 1, "{policy:?}");
        assert_eq!(report.skipped_steps, u64::from(policy == NonFinite::Skip));
        let buffers = gpu.separate(&parameters);
        let there = gpu.separate(&before);
        let grads: Vec<Grad> =
            there.into_iter().zip(&buffers).map(|(g, p)| g.parameter(p.buffer(), 0, DType::F32)).collect();
        let there = gpu.run(&gpu.clipper.prepare(&grads, &clip).unwrap());
        assert_eq!(there.segments.len(), report.segments.len());
        for (a, b) in there.segments.iter().zip(&report.segments) {
            assert_eq!(format!("{a:?}"), format!("{b:?}"), "{policy:?} on {}", gpu.name);
        }
        assert!(bits(&contents(&gpu, &grads, &before)) == bits(&after), "{policy:?} on {}", gpu.name);
    }
}
