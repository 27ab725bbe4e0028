//! A group means what its page says in every scope and under every rule, or is refused: excluded tensors
//! are in no norm but their own and not changed, own thresholds count where a segment lies within a group.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Held, Kind, bits, data, gpu, scopes};
use gradclip::cpu::{self, GradMut};
use gradclip::layout::{Outcome, Partial, Sum};
use gradclip::plan::{Placement, Plan, PlanLimits};
use gradclip::{
    Adapt, Clip, ClipError, DType, Grad, Group, History, NonFinite, NormType, PrepareError, Report, Rule,
    Scope, Units,
};

const SHAPES: [[u64; 2]; 5] = [[8, 300], [8, 40], [8, 3], [8, 2500], [8, 1]];

fn tensors() -> Vec<Vec<f32>> {
    SHAPES.iter().zip(1..).map(|(s, seed)| data(Kind::Uniform(1.0), (s[0] * s[1]) as usize, seed)).collect()
}

/// Clips on the CPU path and, where there is one, on the GPU: all records must be equal.
fn clipped(
    gpu: &Option<Held>,
    data: &[Vec<f32>],
    groups: &[Option<Group>],
    clip: &Clip,
) -> (Report, Vec<Vec<f32>>) {
    let parameters: Vec<Vec<f32>> = data.iter().map(|t| vec![0.5; t.len()]).collect();
    let excluded = |i: usize| groups[i].as_ref().is_some_and(|g| *g == Group::excluded("free"));
    let mut after = data.to_vec();
    let mut grads: Vec<GradMut<'_>> = after
        .iter_mut()
        .enumerate()
        .map(|(i, t)| {
            // Excluded tensors need neither a shape nor a parameter.
            let grad = GradMut::new(format!("t{i}"), t);
            let grad = if excluded(i) { grad } else { grad.shape(&SHAPES[i]).parameter(&parameters[i][..]) };
            groups[i].iter().fold(grad, GradMut::group)
        })
        .collect();
    let trace = cpu::clip_traced_with(&mut grads, clip, &mut History::default()).unwrap();
    if let Some(gpu) = gpu {
        let grads: Vec<Grad> = gpu
            .separate(data)
            .into_iter()
            .enumerate()
            .map(|(i, g)| {
                let parameter = gpu.buffer(bytemuck::cast_slice(&parameters[i]));
                let g =
                    if excluded(i) { g } else { g.shape(&SHAPES[i]).parameter(&parameter, 0, DType::F32) };
                groups[i].iter().fold(g, Grad::group)
            })
            .collect();
        let pass = gpu.clipper.prepare(&grads, clip).unwrap();
        let what = format!("{clip:?} on {}", gpu.name);
        // NaN is not equal to itself, but it prints alike.
        assert_eq!(format!("{:?}", gpu.run(&pass)), format!("{:?}", trace.report), "{what}");
        assert_eq!(gpu.read::<Partial>(pass.partials())[..trace.partials.len()], trace.partials, "{what}");
        assert_eq!(gpu.read::<Sum>(pass.tensor_sums()), trace.tensor_sums, "{what}");
        assert_eq!(gpu.read::<Sum>(pass.segment_sums()), trace.segment_sums, "{what}");
        let words = |outcomes: &[Outcome]| -> Vec<u32> { bytemuck::cast_slice(outcomes).to_vec() };
        assert_eq!(words(&gpu.read::<Outcome>(pass.outcomes())), words(&trace.outcomes), "{what}");
        let on_gpu: Vec<Vec<f32>> = grads.iter().map(|g| gpu.read(g.buffer())).collect();
        assert_eq!(bits(&on_gpu), bits(&after), "{what}");
    }
    (trace.report, after)
}

fn rules() -> [Rule; 7] {
    let agc = Rule::Agc { eps: 1e-3 };
    [Rule::Norm, Rule::Value, Rule::Rms, Rule::Average, agc, Rule::Sign, Rule::Normalize]
}

fn of(scope: Scope, rule: Rule, threshold: f32) -> Option<Clip> {
    let mut clip = Clip::global_norm(threshold).scope(scope).rule(rule);
    if rule == Rule::Value {
        clip = clip.norm_type(NormType::Inf).on_non_finite(NonFinite::Keep);
    }
    clip.validate().ok().map(|()| clip)
}

/// What is left without the excluded tensors comes out as if they were not there.
#[test]
fn excluded_tensors_are_in_no_norm_and_not_changed() {
    let gpu = gpu();
    let data = tensors();
    let free = Some(Group::excluded("free"));
    let groups = [None, free.clone(), None, free, None];
    let kept = [0usize, 2, 4];
    let mut met = 0;
    for scope in scopes() {
        for rule in rules() {
            let Some(clip) = of(scope, rule, 0.01) else { continue };
            met += 1;
            for clip in [clip, clip.unscale(0.5)] {
                let (report, after) = clipped(&gpu, &data, &groups, &clip);
                let unscaled =
                    |t: &Vec<f32>| -> Vec<f32> { t.iter().map(|x| x * clip.unscale as f32).collect() };
                for i in [1, 3] {
                    assert_eq!(bits(&[after[i].clone()]), bits(&[unscaled(&data[i])]), "t{i}, {clip:?}");
                }
                let mut alone: Vec<Vec<f32>> = kept.iter().map(|&i| data[i].clone()).collect();
                let parameters: Vec<Vec<f32>> = alone.iter().map(|t| vec![0.5; t.len()]).collect();
                let mut grads: Vec<GradMut<'_>> = alone
                    .iter_mut()
                    .zip(&parameters)
                    .zip(kept)
                    .map(|((t, p), i)| GradMut::new("t", t).shape(&SHAPES[i]).parameter(&p[..]))
                    .collect();
                let without = cpu::clip(&mut grads, &clip).unwrap();
                let rest: Vec<Vec<f32>> = kept.iter().map(|&i| after[i].clone()).collect();
                assert_eq!(bits(&rest), bits(&alone), "{clip:?}");
                assert!(alone.iter().zip(kept).any(|(a, i)| *a != data[i]), "{clip:?} changed nothing");
                assert_eq!(report.norm(), without.norm(), "{clip:?}");
                let shown = report.segments.iter().filter(|s| s.excluded).count();
                let expected = match scope {
                    Scope::Global | Scope::Group => 1,
                    Scope::Tensor => 2,
                    _ => 0,
                };
                assert_eq!(shown, expected, "{clip:?}");
            }
        }
    }
    assert!(met >= 36, "{met}");
}

/// A limit on the whole set, and non-finite elements of excluded tensors.
#[test]
fn excluded_tensors_beside_totals_and_what_is_not_finite() {
    let gpu = gpu();
    let mut data = tensors();
    let free = Some(Group::excluded("free"));
    let groups = [None, free.clone(), None, free, None];
    for scope in [Scope::Tensor, Scope::Unit(Units::OutputFirst), Scope::Row] {
        let clip = Clip::global_norm(f32::INFINITY).scope(scope).total(1.0);
        let (report, after) = clipped(&gpu, &data, &groups, &clip);
        assert!(report.total.unwrap().clipped && after[1] == data[1] && after[3] == data[3]);
        let rest: Vec<Vec<f32>> = [0, 2, 4].iter().map(|&i| after[i].clone()).collect();
        assert!((common::norm(&rest) - 1.0).abs() < 1e-6);
    }
    data[1][5] = f32::NAN;
    data[3][100] = f32::INFINITY;
    for policy in [NonFinite::Skip, NonFinite::Zero, NonFinite::Sanitize, NonFinite::Nan] {
        for scope in scopes() {
            let clip = Clip::global_norm(0.01).scope(scope).on_non_finite(policy);
            let (report, after) = clipped(&gpu, &data, &groups, &clip);
            assert_eq!((report.non_finite(), report.first_non_finite()), (2, Some("t1")), "{clip:?}");
            // Excluded tensors keep every bit, and the others are clipped all the same.
            assert_eq!(
                bits(&[after[1].clone(), after[3].clone()]),
                bits(&[data[1].clone(), data[3].clone()])
            );
            assert!(after[0] != data[0] && after[0].iter().all(|x| x.is_finite()), "{clip:?}");
        }
    }
}

/// Adaptive thresholds neither see nor limit what is excluded.
#[test]
fn excluded_tensors_do_not_adapt() {
    let gpu = gpu();
    let data = tensors();
    let groups = [None, Some(Group::excluded("free")), None, None, None];
    let adapt = Adapt::Quantile { quantile: 0.5, rate: 0.2 };
    for scope in scopes() {
        let clip = Clip::global_norm(0.05).scope(scope).adapt(adapt);
        let (_, after) = clipped(&gpu, &data, &groups, &clip);
        assert!(after[1] == data[1] && after[0] != data[0], "{scope:?}");
    }
}

/// The threshold of a group holds for each tensor and unit of it, under every rule.
#[test]
fn thresholds_of_groups_count_within_tensors_and_units() {
    let gpu = gpu();
    let data = tensors();
    let own = Some(Group::new("own", 0.02));
    let groups = [own.clone(), None, own, None, None];
    for scope in scopes() {
        for rule in rules() {
            let Some(clip) = of(scope, rule, 0.01) else { continue };
            if matches!(scope, Scope::Global | Scope::Row) {
                continue;
            }
            let (_, after) = clipped(&gpu, &data, &groups, &clip);
            let of_group = |i: usize| if [0, 2].contains(&i) { 0 } else { 1 };
            // Each group by itself, under a clip with its threshold.
            for (k, threshold) in [(0, 0.02f32), (1, 0.01)] {
                let members: Vec<usize> = (0..5).filter(|&i| of_group(i) == k).collect();
                let mut alone: Vec<Vec<f32>> = members.iter().map(|&i| data[i].clone()).collect();
                let parameters: Vec<Vec<f32>> = alone.iter().map(|t| vec![0.5; t.len()]).collect();
                let mut grads: Vec<GradMut<'_>> = alone
                    .iter_mut()
                    .zip(&parameters)
                    .zip(&members)
                    .map(|((t, p), &i)| GradMut::new("t", t).shape(&SHAPES[i]).parameter(&p[..]))
                    .collect();
                cpu::clip(&mut grads, &of(scope, rule, threshold).unwrap()).unwrap();
                let together: Vec<Vec<f32>> = members.iter().map(|&i| after[i].clone()).collect();
                assert_eq!(bits(&together), bits(&alone), "{clip:?}, group {k}");
            }
        }
    }
}

/// Where tensors of several groups share one norm, a threshold of one of them means nothing.
#[test]
fn thresholds_of_groups_are_refused_where_a_norm_is_shared() {
    let gpu = gpu();
    for scope in [Scope::Global, Scope::Row] {
        let clip = Clip::global_norm(1.0).scope(scope);
        let group = Group::new("head", 0.5);
        let mut g = [3.0f32, 4.0];
        let grads = &mut [GradMut::new("w", &mut g).shape(&[2, 1]).group(&group)];
        let error = cpu::clip(grads, &clip).unwrap_err();
        let ClipError::Tensor { tensor, required, given } = &error else { panic!("{error}") };
        assert_eq!((tensor.as_str(), given.as_str()), ("w", "group `head` with threshold 0.5"));
        assert!(required.contains("Scope::Group") && required.contains("Group::excluded"));
        assert_eq!(g, [3.0, 4.0]);
        let tensor = Placement {
            name: "w".into(),
            buffer_size: 8,
            elements: 2,
            shape: Some([2, 1].into()),
            group: Some(group.clone()),
            ..Placement::default()
        };
        let limits = PlanLimits::new(&wgpu::Limits::default(), 256).unwrap();
        assert_eq!(Plan::new(&[tensor], &clip, &limits).unwrap_err(), PrepareError::Clip(error.clone()));
        let Some(gpu) = &gpu else { continue };
        let grads = [gpu.separate(&[vec![3.0, 4.0]]).remove(0).shape(&[2, 1]).group(&group)];
        let refused = gpu.clipper.prepare(&grads, &clip).unwrap_err();
        assert!(matches!(refused, PrepareError::Clip(ClipError::Tensor { .. })), "{refused}");
    }
    let mut g = [3.0f32, 4.0];
    let [first, second] = g.split_at_mut(1).into();
    let (a, b) = (Group::new("a", 1.0), Group::excluded("a"));
    let grads = &mut [GradMut::new("x", first).group(&a), GradMut::new("y", second).group(&b)];
    let error = cpu::clip(grads, &Clip::per_tensor_norm(1.0)).unwrap_err();
    assert_eq!(error, ClipError::Group { name: "a".into(), first: Some(1.0), second: None });
}
