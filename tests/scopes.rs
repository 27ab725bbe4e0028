//! Groups, units and rows: the GPU's records and gradients equal the CPU's in every bit, and both
//! agree with plain f64 loops that find an element's unit by its indices.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;

use common::{Gpu, Kind, bits, contents, data, gpu};
use gradclip::cpu::{self, GradMut, Trace};
use gradclip::layout::{Outcome, Partial, Sum, Tally};
use gradclip::{
    Clip, ClipError, ClipperOptions, Grad, Group, NonFinite, NormType, Pass, PrepareError, Rule, Units,
};

#[derive(Clone)]
struct Tensor {
    shape: Vec<u64>,
    values: Vec<f32>,
}

fn tensor(shape: &[u64], kind: Kind, seed: u64) -> Tensor {
    let len = shape.iter().product::<u64>() as usize;
    Tensor { shape: shape.to_vec(), values: data(kind, len, seed) }
}

fn values(tensors: &[Tensor]) -> Vec<Vec<f32>> {
    tensors.iter().map(|t| t.values.clone()).collect()
}

fn cpu_trace(tensors: &[Tensor], clip: &Clip) -> (Trace, Vec<Vec<f32>>) {
    let mut after = values(tensors);
    let mut grads: Vec<_> = after
        .iter_mut()
        .zip(tensors)
        .enumerate()
        .map(|(i, (v, t))| GradMut::new(format!("t{i}"), v).shape(&t.shape))
        .collect();
    let trace = cpu::clip_traced(&mut grads, clip).unwrap();
    (trace, after)
}

fn shaped(grads: Vec<Grad>, tensors: &[Tensor]) -> Vec<Grad> {
    grads.into_iter().zip(tensors).map(|(g, t)| g.shape(&t.shape)).collect()
}

/// Every record that a pass left, against the CPU's.
fn assert_same_records(gpu: &Gpu, pass: &Pass, trace: &Trace, what: &str) {
    let what = format!("{what} on {}", gpu.name);
    let partials = gpu.read::<Partial>(pass.partials());
    assert!(partials[..trace.partials.len()] == trace.partials, "{what}: partials");
    let tensors = gpu.read::<Sum>(pass.tensor_sums());
    assert_eq!(&tensors[..trace.tensor_sums.len()], trace.tensor_sums, "{what}: tensors");
    let segments = gpu.read::<Sum>(pass.segment_sums());
    assert!(segments[..trace.segment_sums.len()] == trace.segment_sums, "{what}: segments");
    let outcomes = gpu.read::<Outcome>(pass.outcomes());
    let words = |o: &[Outcome]| bytemuck::cast_slice::<_, u32>(o).to_vec();
    assert!(
        words(&outcomes[..trace.outcomes.len()]) == words(&trace.outcomes),
        "{what}: {:?} is not {:?}",
        outcomes.iter().zip(&trace.outcomes).find(|(a, b)| words(&[**a]) != words(&[**b])),
        trace.outcomes.len(),
    );
    assert_eq!(gpu.read::<Tally>(pass.tally())[0], trace.tally, "{what}: tally");
}

/// In buffers of their own, and in one arena off the alignment with the kernels that hardware gets.
fn check(gpu: &Gpu, tensors: &[Tensor], clip: &Clip, what: &str) -> (Trace, Vec<Vec<f32>>) {
    let (trace, after) = cpu_trace(tensors, clip);
    let before = values(tensors);
    let grads = shaped(gpu.separate(&before), tensors);
    let pass = gpu.clipper.prepare(&grads, clip).unwrap();
    let report = gpu.run(&pass);
    assert_same_records(gpu, &pass, &trace, what);
    assert_eq!(format!("{report:?}"), format!("{:?}", trace.report), "{what}");
    assert!(bits(&contents(gpu, &grads, &before)) == bits(&after), "{what}: gradients on {}", gpu.name);
    let arena = shaped(gpu.arena(&before, 3, 1), tensors);
    // Given this, software adapters too cut long units into workgroups.
    let clipper = gpu.clipper_with(ClipperOptions::default().workgroup_size(64));
    let pass = clipper.prepare(&arena, clip).unwrap();
    gpu.run(&pass);
    assert_same_records(gpu, &pass, &trace, &format!("{what} in an arena"));
    let words = gpu.read::<f32>(arena[0].buffer());
    let mut at = 3;
    for t in &after {
        assert!(words[at..at + t.len()].iter().zip(t).all(|(a, b)| a.to_bits() == b.to_bits()), "{what}");
        at += t.len() + 1;
        assert!(words[at - 1].is_nan(), "{what}: a neighbour was written");
    }
    (trace, after)
}

/// The unit of each element: its indices along the axes that are not summed over.
fn units_by_index(shape: &[u64], over: &[usize]) -> Vec<Vec<u64>> {
    let len = shape.iter().product::<u64>();
    (0..len)
        .map(|e| {
            let mut rest = e;
            let mut index: Vec<u64> = shape
                .iter()
                .rev()
                .map(|n| {
                    let i = rest % n;
                    rest /= n;
                    i
                })
                .collect();
            index.reverse();
            index.iter().enumerate().filter(|(axis, _)| !over.contains(axis)).map(|(_, &i)| i).collect()
        })
        .collect()
}

/// The norm limit on groups of elements in f64; keys are anything that tells groups apart.
fn assert_clipped<K: Ord + Clone>(
    before: &[f32],
    after: &[f32],
    keys: &[K],
    limit: impl Fn(&K, u64) -> f64,
) -> usize {
    // Norm, quotient, scale and product: each at most one rounding of 2^-24.
    assert_clipped_within(before, after, keys, limit, 2.5e-7)
}

fn assert_clipped_within<K: Ord + Clone>(
    before: &[f32],
    after: &[f32],
    keys: &[K],
    limit: impl Fn(&K, u64) -> f64,
    tolerance: f64,
) -> usize {
    let mut squares: BTreeMap<K, (f64, u64)> = BTreeMap::new();
    for (x, key) in before.iter().zip(keys) {
        let entry = squares.entry(key.clone()).or_default();
        *entry = (entry.0 + f64::from(*x).powi(2), entry.1 + 1);
    }
    let factor = |key: &K| {
        let (square, n) = squares[key];
        (limit(key, n) / square.sqrt()).min(1.0)
    };
    for ((b, a), key) in before.iter().zip(after).zip(keys) {
        let want = f64::from(*b) * factor(key);
        assert!((f64::from(*a) - want).abs() <= want.abs() * tolerance, "{b:e} became {a:e}, not {want:e}");
    }
    squares.keys().filter(|key| factor(key) < 1.0).count()
}

const SHAPES: [&[u64]; 12] = [
    &[1, 1],
    &[3, 5],
    &[257, 33],
    &[2, 20_000],
    &[20_000, 3],
    &[300, 300],
    &[7],
    &[3, 4, 5, 6],
    &[2, 3, 1030],
    &[1030, 3, 2],
    &[0, 4],
    &[1, 19],
];

#[test]
fn units_of_every_shape() {
    let Some(gpu) = gpu() else { return };
    for (units, over) in [
        (Units::OutputFirst, None),
        (Units::OutputLast, None),
        (Units::over(&[0]), Some(&[0usize][..])),
        (Units::over(&[]), Some(&[][..])),
    ] {
        let tensors: Vec<_> =
            SHAPES.iter().zip(0..).map(|(shape, i)| tensor(shape, Kind::Uniform(1.0), i)).collect();
        let clip = Clip::per_unit_norm(0.6, units);
        let (trace, after) = check(&gpu, &tensors, &clip, &format!("{units:?}"));
        let mut clipped = 0;
        for (t, after) in tensors.iter().zip(&after) {
            let rank = t.shape.len();
            let over: Vec<usize> = match (units, over) {
                (_, Some(over)) => over.to_vec(),
                (Units::OutputFirst, _) if rank == 1 => vec![0],
                (Units::OutputFirst, _) => (1..rank).collect(),
                _ if t.shape.iter().filter(|&&n| n > 1).count() < 2 => (0..rank).collect(),
                _ if rank < 4 => vec![0],
                _ => (0..rank - 1).collect(),
            };
            let keys = units_by_index(&t.shape, &over);
            clipped += assert_clipped(&t.values, after, &keys, |_, _| 0.6);
        }
        assert_eq!(trace.report.clipped_segments as usize, clipped, "{units:?}");
        assert!(clipped > 0);
    }
}

#[test]
fn units_over_axes_in_the_middle() {
    let Some(gpu) = gpu() else { return };
    for (shape, over) in [
        (&[5u64, 6, 7][..], &[1usize][..]),
        (&[5, 6, 7], &[0, 2]),
        (&[4, 3, 5, 3], &[1, 3]),
        (&[4, 3, 5, 3], &[0, 2]),
        (&[40, 3, 50, 7], &[1, 3]),
    ] {
        let tensors = [tensor(shape, Kind::Uniform(3.0), 9)];
        let (_, after) =
            check(&gpu, &tensors, &Clip::per_unit_norm(2.0, Units::over(over)), &format!("{over:?}"));
        let keys = units_by_index(shape, over);
        assert!(assert_clipped(&tensors[0].values, &after[0], &keys, |_, _| 2.0) > 0);
    }
}

/// A unit's norm has the bits of the norm of a tensor that holds only that unit.
#[test]
fn a_unit_is_a_tensor_of_its_own() {
    let Some(gpu) = gpu() else { return };
    for kind in [Kind::Bits, Kind::Spike, Kind::Alternating, Kind::Subnormal] {
        for norm in [NormType::Two, NormType::One, NormType::Inf] {
            for shape in [[40u64, 1100], [3, 20_000], [9, 70]] {
                let t = tensor(&shape, kind, 4);
                let rows: Vec<Tensor> = t
                    .values
                    .chunks(shape[1] as usize)
                    .map(|row| Tensor { shape: vec![shape[1]], values: row.to_vec() })
                    .collect();
                let clip = Clip::per_unit_norm(1.0, Units::OutputFirst).norm_type(norm);
                let (cut, _) = check(&gpu, std::slice::from_ref(&t), &clip, &format!("{kind:?} {norm:?}"));
                let (alone, _) = cpu_trace(&rows, &Clip::per_tensor_norm(1.0).norm_type(norm));
                let norms = |o: &[Outcome]| o.iter().map(|o| o.norm.to_bits()).collect::<Vec<_>>();
                assert_eq!(norms(&cut.outcomes), norms(&alone.outcomes), "{kind:?} {norm:?} {shape:?}");
                // The same transposed: columns.
                let [rows, columns] = shape.map(|n| n as usize);
                let turned = (0..columns).flat_map(|c| (0..rows).map(move |r| (r, c)));
                let turned = turned.map(|(r, c)| t.values[r * columns + c]).collect();
                let turned = Tensor { shape: vec![shape[1], shape[0]], values: turned };
                let clip = Clip::per_unit_norm(1.0, Units::over(&[0])).norm_type(norm);
                let (columns, _) = check(&gpu, &[turned], &clip, &format!("columns {kind:?} {norm:?}"));
                assert_eq!(norms(&columns.outcomes), norms(&alone.outcomes), "{kind:?} {norm:?} {shape:?}");
            }
        }
    }
}

#[test]
fn any_p_over_units() {
    let Some(gpu) = gpu() else { return };
    // The last ones are long, and many: so long a sum by one invocation would be 1e-4 off.
    for (height, width, units) in
        [(60, 50, Units::OutputFirst), (60, 50, Units::over(&[0])), (130, 16_000, Units::OutputFirst)]
    {
        let rows = units == Units::OutputFirst;
        let mut t = tensor(&[height, width], Kind::Uniform(1.0), 2);
        if width > 1000 {
            t.values.iter_mut().enumerate().for_each(|(i, v)| *v = if i % 16_000 == 0 { 1.0 } else { 0.59 });
        }
        let clip = Clip::per_unit_norm(f32::INFINITY, units).norm_type(NormType::P(3.0));
        let grads = shaped(gpu.separate(std::slice::from_ref(&t.values)), std::slice::from_ref(&t));
        let pass = gpu.clipper.prepare(&grads, &clip).unwrap();
        gpu.run(&pass);
        for (u, outcome) in gpu.read::<Outcome>(pass.outcomes()).iter().enumerate() {
            let (height, width) = (height as usize, width as usize);
            let (first, step, len) = if rows { (u * width, 1, width) } else { (u, width, height) };
            let cubes: f64 = (0..len).map(|i| f64::from(t.values[first + i * step]).abs().powi(3)).sum();
            // Logarithms of adapters are good to some ulp.
            assert!((f64::from(outcome.norm) / cubes.cbrt() - 1.0).abs() < 3e-6, "{u}");
        }
    }
}

#[test]
fn rows_over_several_tensors() {
    let Some(gpu) = gpu() else { return };
    for n in [1u64, 2, 255, 256, 257, 3000] {
        let shapes: [&[u64]; 6] = [&[n, 3], &[n, 3], &[n, 15, 3], &[n, 3], &[n, 4], &[n]];
        let tensors: Vec<_> = shapes.iter().zip(0..).map(|(s, i)| tensor(s, Kind::Uniform(1.0), i)).collect();
        let (trace, after) = check(&gpu, &tensors, &Clip::per_row_norm(4.4), &format!("{n} rows"));
        let flat = |v: &[Vec<f32>]| v.concat();
        let keys: Vec<u64> = tensors
            .iter()
            .flat_map(|t| {
                let len = t.values.len() as u64 / n;
                (0..n).flat_map(move |row| std::iter::repeat_n(row, len as usize))
            })
            .collect();
        // Rows are never above their limit: norm, quotient, scale and product are each rounded one way, by at
        // most 2^-23, and the norm is taken to be 2^-26 larger.
        let clipped = assert_clipped_within(&flat(&values(&tensors)), &flat(&after), &keys, |_, _| 4.4, 5e-7);
        assert_eq!(trace.report.clipped_segments as usize, clipped);
        assert!(trace.report.segments.is_empty());
    }
    // Long rows take a workgroup each; rows beyond a chunk several.
    let tensors = [
        tensor(&[3, 20_000], Kind::Bits, 1),
        tensor(&[3, 700], Kind::Bits, 2),
        tensor(&[3, 2], Kind::Bits, 3),
    ];
    check(&gpu, &tensors, &Clip::per_row_norm(1e30), "long rows");
}

/// Optax' own example: two of four are clipped.
#[test]
fn optax_per_example() {
    let Some(gpu) = gpu() else { return };
    let tensors = [
        Tensor { shape: vec![4, 2], values: vec![0.0, -0.5, 3.0, 4.0, 5.0, 6.0, 0.0, 0.0] },
        Tensor { shape: vec![4, 1], values: vec![0.0, 5.0, -3.0, 0.0] },
    ];
    let (trace, after) = check(&gpu, &tensors, &Clip::per_row_norm(1.0), "optax");
    assert_eq!(trace.report.clipped_segments, 2);
    let column = |t: &[f32], c: usize, width: usize| -> f32 { t.iter().skip(c).step_by(width).sum() };
    for (got, want) in [
        (column(&after[0], 0, 2), 1.021_878_4),
        (column(&after[0], 1, 2), 0.782_822_6),
        (column(&after[1], 0, 1), 0.348_538_2),
    ] {
        assert!((got - want).abs() < 1e-6, "{got} {want}");
    }
}

/// Rows beyond those in use are not read, count for nothing and keep every bit.
#[test]
fn the_number_of_rows_changes_between_steps() {
    let Some(gpu) = gpu() else { return };
    for (n, long) in [(600, 3u64), (600, 300), (1100, 300)] {
        let all = [tensor(&[n, long], Kind::Uniform(1.0), 1), tensor(&[n, 2], Kind::Uniform(1.0), 2)];
        let clip = Clip::per_row_norm(0.9).unscale(0.5);
        for used in [0, 1, 255, 256, 300, 599, 600] {
            let first = |t: &Tensor| {
                let len = used * (t.values.len() / n as usize);
                let mut shape = t.shape.clone();
                shape[0] = used as u64;
                Tensor { shape, values: t.values[..len].to_vec() }
            };
            let (trace, after) = cpu_trace(&all.each_ref().map(first), &clip);
            let mut before = values(&all);
            // NaN beyond: it would show.
            for (t, after) in before.iter_mut().zip(&after) {
                t[after.len()..].fill(f32::NAN);
            }
            let grads = shaped(gpu.separate(&before), &all);
            // Long rows then take workgroups, 1,100 of them several to one.
            let clipper = gpu.clipper_with(ClipperOptions::default().workgroup_size(64));
            let pass = clipper.prepare(&grads, &clip).unwrap();
            pass.set_rows(&gpu.queue, used as u64).unwrap();
            let report = gpu.run(&pass);
            assert_eq!(report.clipped_segments, trace.report.clipped_segments, "{used} of {long}");
            assert_eq!(report.non_finite(), 0);
            let norms = |r: &gradclip::Report| r.tensors.iter().map(|t| t.norm).collect::<Vec<_>>();
            assert_eq!(norms(&report), norms(&trace.report));
            for ((got, want), before) in contents(&gpu, &grads, &before).iter().zip(&after).zip(&before) {
                assert!(got[..want.len()].iter().zip(want).all(|(a, b)| a.to_bits() == b.to_bits()));
                assert!(
                    got[want.len()..]
                        .iter()
                        .zip(&before[want.len()..])
                        .all(|(a, b)| a.to_bits() == b.to_bits())
                );
            }
            assert!(pass.set_rows(&gpu.queue, n + 1).is_err());
        }
    }
}

#[test]
fn groups_with_limits_of_their_own() {
    let Some(gpu) = gpu() else { return };
    let [a, b, free] = [Group::new("a", 2.0), Group::new("b", f32::INFINITY), Group::excluded("free")];
    let groups = [Some(&a), None, Some(&free), Some(&b), Some(&a), Some(&free), None];
    let tensors: Vec<_> = (0..7).map(|i| tensor(&[40 + i], Kind::Uniform(1.0), i)).collect();
    for total in [None, Some(1.0), Some(7.0), Some(1e9)] {
        let clip = total.map_or(Clip::per_group_norm(3.0), |t| Clip::per_group_norm(3.0).total(t));
        let mut after = values(&tensors);
        let mut grads: Vec<_> =
            after.iter_mut().enumerate().map(|(i, v)| GradMut::new(format!("t{i}"), v)).collect();
        grads = grads
            .into_iter()
            .zip(groups)
            .map(|(g, group)| match group {
                Some(group) => g.group(group),
                None => g,
            })
            .collect();
        let trace = cpu::clip_traced(&mut grads, &clip).unwrap();
        drop(grads);
        let names: Vec<_> = trace.report.segments.iter().map(|s| s.name.as_deref()).collect();
        assert_eq!(names, [Some("a"), None, Some("free"), Some("b")]);

        let before = values(&tensors);
        let norm = |members: &[usize]| {
            members.iter().flat_map(|&i| &before[i]).map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt()
        };
        let whole = norm(&[0, 1, 3, 4, 6]);
        let by_total = total.map_or(1.0, |t| (t / whole).min(1.0));
        for (members, limit) in
            [(&[0usize, 4][..], 2.0), (&[1, 6], 3.0), (&[3], f64::INFINITY), (&[2, 5], f64::NAN)]
        {
            // NaN is excluded: neither limit applies.
            let factor = if limit.is_nan() { 1.0 } else { (limit / norm(members)).min(by_total).min(1.0) };
            for &i in members {
                for (b, a) in before[i].iter().zip(&after[i]) {
                    let want = f64::from(*b) * factor;
                    assert!((f64::from(*a) - want).abs() <= want.abs() * 2.5e-7, "t{i}: {b} {a} {want}");
                }
            }
        }
        assert_eq!(trace.report.total.is_some(), total.is_some());
        if let Some(segment) = &trace.report.total {
            assert!((segment.norm / whole - 1.0).abs() < 1e-7);
        }

        let grads: Vec<Grad> = gpu
            .separate(&before)
            .into_iter()
            .zip(groups)
            .map(|(g, group)| group.map_or(g.clone(), |group| g.group(group)))
            .collect();
        let pass = gpu.clipper.prepare(&grads, &clip).unwrap();
        let report = gpu.run(&pass);
        assert_same_records(&gpu, &pass, &trace, &format!("total {total:?}"));
        assert_eq!(report, trace.report);
        assert!(bits(&contents(&gpu, &grads, &before)) == bits(&after));
    }
}

#[test]
fn a_total_limit_beside_tensors_units_and_rows() {
    let Some(gpu) = gpu() else { return };
    let tensors = [tensor(&[30, 7], Kind::Uniform(1.0), 1), tensor(&[30, 300], Kind::Uniform(1.0), 2)];
    for clip in
        [Clip::per_tensor_norm(20.0), Clip::per_unit_norm(8.0, Units::OutputFirst), Clip::per_row_norm(9.0)]
    {
        for total in [0.5, 40.0, 1e9] {
            let (trace, _) = check(&gpu, &tensors, &clip.total(total), &format!("{:?} {total}", clip.scope));
            assert!(trace.report.total.is_some());
        }
    }
    // A non-finite element poisons the whole set, unless it is replaced.
    let mut poisoned = tensors;
    poisoned[0].values[5] = f32::NAN;
    for policy in [NonFinite::Skip, NonFinite::Zero, NonFinite::Sanitize] {
        for clip in [Clip::per_tensor_norm(20.0), Clip::per_unit_norm(8.0, Units::OutputFirst)] {
            let clip = clip.total(4.0).on_non_finite(policy);
            let (trace, after) = check(&gpu, &poisoned, &clip, &format!("{policy:?}"));
            assert_eq!(trace.report.first_non_finite(), Some("t0"));
            match policy {
                NonFinite::Skip => assert!(bits(&after) == bits(&values(&poisoned))),
                NonFinite::Zero => assert!(after.iter().flatten().all(|&x| x == 0.0)),
                _ => assert!(common::norm(&after) <= 4.0 * (1.0 + 1e-6)),
            }
        }
    }
}

/// A NaN in one unit changes no bit of another, whatever the policy.
#[test]
fn non_finite_units_do_not_touch_the_others() {
    let Some(gpu) = gpu() else { return };
    let good = tensor(&[50, 40], Kind::Uniform(1.0), 5);
    let mut bad = good.clone();
    bad.values[40 * 7 + 3] = f32::NAN;
    bad.values[40 * 9] = f32::INFINITY;
    for (units, in_bad) in [
        (Units::OutputFirst, (|e: usize| e / 40 == 7 || e / 40 == 9) as fn(usize) -> bool),
        (Units::over(&[0]), |e| e % 40 == 3 || e % 40 == 0),
    ] {
        for policy in [NonFinite::Skip, NonFinite::Zero, NonFinite::Sanitize, NonFinite::Nan] {
            let clip = Clip::per_unit_norm(1.0, units).on_non_finite(policy);
            let (_, clean) = cpu_trace(std::slice::from_ref(&good), &clip);
            let (trace, after) = cpu_trace(std::slice::from_ref(&bad), &clip);
            assert_eq!(trace.report.non_finite(), 2);
            let grads = shaped(gpu.separate(&values(std::slice::from_ref(&bad))), std::slice::from_ref(&bad));
            let pass = gpu.clipper.prepare(&grads, &clip).unwrap();
            gpu.run(&pass);
            assert_same_records(&gpu, &pass, &trace, &format!("{policy:?}"));
            let written = gpu.read::<f32>(grads[0].buffer());
            for e in 0..2000 {
                let same = |a: f32, b: f32| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
                assert!(same(written[e], after[0][e]), "{policy:?} {e}");
                assert!(in_bad(e) || written[e].to_bits() == clean[0][e].to_bits(), "{policy:?} {e}");
            }
        }
    }
}

#[test]
fn tensors_that_lack_what_a_clip_needs_are_named() {
    let Some(gpu) = gpu() else { return };
    let grads = gpu.separate(&[vec![1.0; 12], vec![1.0; 12]]);
    let error = |grads: &[Grad], clip: Clip| gpu.clipper.prepare(grads, &clip).unwrap_err().to_string();
    let units = Clip::per_unit_norm(1.0, Units::OutputFirst);
    assert_eq!(error(&grads, units), "tensor `t0`: required a shape, for units and rows, given none");
    let shaped = |shapes: [&[u64]; 2]| -> Vec<Grad> {
        grads.iter().zip(shapes).map(|(g, s)| g.clone().shape(s)).collect()
    };
    assert_eq!(
        error(&shaped([&[3, 4], &[3, 5]]), units),
        "tensor `t1`: required a shape of 12 elements, given [3, 5]"
    );
    assert_eq!(
        error(&shaped([&[3, 4], &[u64::MAX, u64::MAX]]), units),
        "tensor `t1`: required a shape of 12 elements, given [18446744073709551615, 18446744073709551615]"
    );
    assert_eq!(
        error(&shaped([&[3, 4], &[4, 3]]), Clip::per_row_norm(1.0)),
        "tensor `t1`: required 3 rows, as the first tensor has, given shape [4, 3]"
    );
    assert!(error(&shaped([&[3, 4], &[]]), Clip::per_row_norm(1.0)).contains("`t1`"));
    assert_eq!(
        error(&shaped([&[12], &[3, 4]]), Clip::per_unit_norm(1.0, Units::over(&[1]))),
        "tensor `t0`: required rank 2 or more for the axes given, given shape [12]"
    );
    assert_eq!(
        error(&shaped([&[12], &[3, 4]]), Clip::agc(0.1, Units::OutputFirst)),
        "tensor `t0`: required its parameter, for adaptive gradient clipping, given none"
    );
    let twice =
        [grads[0].clone().group(&Group::new("g", 1.0)), grads[1].clone().group(&Group::excluded("g"))];
    let e = gpu.clipper.prepare(&twice, &Clip::per_group_norm(1.0)).unwrap_err();
    assert!(matches!(e, PrepareError::Clip(ClipError::Group { .. })), "{e}");
    let negative = [grads[0].clone().group(&Group::new("g", -1.0))];
    let e = gpu.clipper.prepare(&negative, &Clip::per_group_norm(1.0)).unwrap_err();
    assert_eq!(e, ClipError::Threshold { given: -1.0 }.into());
    for clip in [
        Clip::value(1.0).norm_type(NormType::Two),
        Clip::global_norm(1.0).on_non_finite(NonFinite::Keep),
        Clip::normalize(f32::INFINITY),
        Clip::global_norm(1.0).total(2.0),
        Clip::per_row_norm(1.0).rule(Rule::Agc { eps: 1e-3 }),
    ] {
        assert!(matches!(clip.validate(), Err(ClipError::Combination { .. })), "{clip:?}");
    }
}
