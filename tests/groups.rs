//! A group means what its page says in every scope and under every rule, or is refused: excluded tensors
//! are in no norm but their own and not changed, own thresholds count where a segment lies within a group.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{
    Distribution, Named, RULES, SCOPES, Tensor, assert_close, assert_same, data, floats, gpu, named, norm,
    on_both, shaped, tolerance, traced,
};
use gradclip::cpu::{self, GradMut};
use gradclip::plan::{Placement, Plan, PlanLimits};
use gradclip::{
    Adapt, Clip, ClipError, Group, History, NonFinite, NormType, PrepareError, Rule, Scope, Units,
};

const SHAPES: [[u64; 2]; 5] = [[8, 300], [8, 40], [8, 3], [8, 2500], [8, 1]];
const FREE: Option<Named> = Some(Named { name: "free", threshold: None });

/// With parameters, in these groups. Excluded tensors need neither a shape nor a parameter.
fn tensors(groups: [Option<Named>; 5]) -> Vec<Tensor> {
    let mut tensors = shaped(&SHAPES, |i, len| data(Distribution::Uniform(1.0), len, i as u64 + 1));
    for (tensor, group) in tensors.iter_mut().zip(groups) {
        tensor.group = group;
        let bare = tensor.excluded();
        tensor.shape = tensor.shape.take().filter(|_| !bare);
        tensor.parameter = Some(vec![0.5f32; tensor.data.len()].into()).filter(|_| !bare);
    }
    tensors
}

/// Some of them alone, in no group.
fn alone(tensors: &[Tensor], members: &[usize]) -> Vec<Tensor> {
    members.iter().map(|&i| Tensor { group: None, ..tensors[i].clone() }).collect()
}

fn of(scope: Scope, rule: Rule, threshold: f32) -> Option<Clip> {
    let mut clip = Clip::global_norm(threshold).scope(scope).rule(rule);
    if rule == Rule::Value {
        clip = clip.norm_type(NormType::Inf).on_non_finite(NonFinite::Keep);
    }
    clip.validate().ok().map(|()| clip)
}

/// Asserts that some of the results are those of other tensors.
fn assert_members(after: &[Tensor], members: &[usize], expected: &[Tensor], what: &str) {
    let own: Vec<_> = members.iter().map(|&i| after[i].data.clone()).collect();
    assert_same(&own, expected, false, what);
}

/// What is left without the excluded tensors comes out as if they were not there.
#[test]
fn excluded_tensors_are_in_no_norm_and_not_changed() {
    let gpu = gpu();
    let tensors = tensors([None, FREE, None, FREE, None]);
    let kept = [0usize, 2, 4];
    let mut met = 0;
    for scope in SCOPES {
        for rule in RULES {
            let Some(clip) = of(scope, rule, 0.01) else { continue };
            met += 1;
            for clip in [clip, clip.unscale(0.5)] {
                let (report, after) = on_both(&gpu, &tensors, &clip);
                let what = format!("{clip:?}");
                let unscaled = [1, 3].map(|i| {
                    let values =
                        tensors[i].data.floats().iter().map(|x| x * clip.unscale as f32).collect::<Vec<_>>();
                    Tensor::new(format!("t{i}"), values)
                });
                assert_members(&after, &[1, 3], &unscaled, &what);
                let (without, left) = traced(&alone(&tensors, &kept), &clip).unwrap();
                assert_members(&after, &kept, &left, &what);
                assert!(kept.iter().any(|&i| after[i].data.bytes() != tensors[i].data.bytes()), "{what}");
                assert_eq!(report.norm(), without.report.norm(), "{what}");
                let shown = report.segments.iter().filter(|s| s.excluded).count();
                let expected = match scope {
                    Scope::Global | Scope::Group => 1,
                    Scope::Tensor => 2,
                    _ => 0,
                };
                assert_eq!(shown, expected, "{what}");
            }
        }
    }
    assert!(met >= 36, "{met}");
}

/// A limit on the whole set, and non-finite elements of excluded tensors.
#[test]
fn excluded_tensors_beside_totals_and_what_is_not_finite() {
    let gpu = gpu();
    let mut tensors = tensors([None, FREE, None, FREE, None]);
    let excluded = |tensors: &[Tensor]| [tensors[1].clone(), tensors[3].clone()];
    for scope in [Scope::Tensor, Scope::Unit(Units::OutputFirst), Scope::Row] {
        let clip = Clip::global_norm(f32::INFINITY).scope(scope).total(1.0);
        let (report, after) = on_both(&gpu, &tensors, &clip);
        assert!(report.total.unwrap().clipped);
        assert_members(&after, &[1, 3], &excluded(&tensors), "excluded");
        let rest = norm(&floats(&alone(&after, &[0, 2, 4])));
        assert_close([rest], [1.0], tolerance::NORM_AFTER, 0.0, "rest");
    }
    for (t, at, value) in [(1, 5, f32::NAN), (3, 100, f32::INFINITY)] {
        let mut values = tensors[t].data.floats();
        values[at] = value;
        tensors[t].data = values.into();
    }
    for policy in [NonFinite::Skip, NonFinite::Zero, NonFinite::Sanitize, NonFinite::Nan] {
        for scope in SCOPES {
            let clip = Clip::global_norm(0.01).scope(scope).on_non_finite(policy);
            let (report, after) = on_both(&gpu, &tensors, &clip);
            assert_eq!((report.non_finite(), report.first_non_finite()), (2, Some("t1")), "{clip:?}");
            // Excluded tensors keep every bit, and the others are clipped all the same.
            assert_members(&after, &[1, 3], &excluded(&tensors), &format!("{clip:?}"));
            let first = &after[0].data;
            assert!(
                first.bytes() != tensors[0].data.bytes() && first.values().all(f64::is_finite),
                "{clip:?}"
            );
        }
    }
}

/// Adaptive thresholds neither see nor limit what is excluded.
#[test]
fn excluded_tensors_do_not_adapt() {
    let gpu = gpu();
    let tensors = tensors([None, FREE, None, None, None]);
    let adapt = Adapt::Quantile { quantile: 0.5, rate: 0.2 };
    for scope in SCOPES {
        let clip = Clip::global_norm(0.05).scope(scope).adapt(adapt);
        let mut after = tensors.clone();
        let grads = &mut common::grads(&mut after);
        let trace = cpu::clip_traced_with(grads, &clip, &mut History::default()).unwrap();
        assert_members(&after, &[1], &tensors[1..2], &format!("{scope:?}"));
        assert!(after[0].data.bytes() != tensors[0].data.bytes(), "{scope:?}");
        if let Some(gpu) = &gpu {
            let placed = gpu.place(&tensors, common::Placing::APART);
            gpu.assert_does(&gpu.clipper, &placed, &clip, &(trace, after));
        }
    }
}

/// The threshold of a group holds for each tensor and unit of it, under every rule.
#[test]
fn thresholds_of_groups_count_within_tensors_and_units() {
    let gpu = gpu();
    let own = Some(Named::new("own", 0.02f32));
    let tensors = tensors([own, None, own, None, None]);
    for scope in SCOPES.into_iter().filter(|scope| !matches!(scope, Scope::Global | Scope::Row)) {
        for rule in RULES {
            let Some(clip) = of(scope, rule, 0.01) else { continue };
            let (_, after) = on_both(&gpu, &tensors, &clip);
            // Each group by itself, under a clip with its threshold.
            for (members, threshold) in [(&[0usize, 2][..], 0.02f32), (&[1, 3, 4], 0.01)] {
                let clip = of(scope, rule, threshold).unwrap();
                let (_, left) = traced(&alone(&tensors, members), &clip).unwrap();
                assert_members(&after, members, &left, &format!("{clip:?}, {members:?}"));
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

/// Coefficients of which `f32` has no bits left: the limit on the whole set is the smaller one by 10^10, and holds. Each result is
/// threshold / norm * 1e30, rounded a few times.
#[test]
fn limits_on_the_whole_set_hold_where_no_f32_tells_coefficients_apart() {
    let gpu = gpu();
    for (own, total, expected) in [(1e-20f32, 1e-30f32, 1e-30), (1e-30, 1e-20, 1e-30), (1e-20, 0.0, 0.0)] {
        let clip = Clip::per_group_norm(own).total(total);
        let set = named([vec![1e30f32, 0.0], vec![0.0f32; 3]]);
        let (report, after) = on_both(&gpu, &set, &clip);
        assert_eq!(report.segments[0].coefficient, 0.0);
        let first = f64::from(floats(&after)[0][0]);
        assert_close([first], [expected], 8.0 * tolerance::HALF_ULP, 0.0, &format!("{own:e} {total:e}"));
    }
}
