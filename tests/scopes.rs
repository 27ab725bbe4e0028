//! Groups, units and rows: the GPU's records and gradients equal the CPU's in every bit, and both
//! agree with plain f64 loops that find an element's unit by its indices.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::tolerance::{EIGHT_DIGITS, NORM_AFTER, SCALED, SCALED_BELOW, SEVEN_DIGITS, power_on_adapter};
use common::{
    Data, Distribution, Gpu, NORMS, Named, Placing, Tensor, assert_all_close, assert_close, assert_same,
    data, floats, gpu, plain, shaped, traced,
};
use gradclip::cpu::Trace;
use gradclip::layout::Outcome;
use gradclip::{
    Clip, ClipError, ClipperOptions, Grad, Group, NonFinite, NormType, PrepareError, Rule, Units,
};

fn tensors(shapes: &[impl AsRef<[u64]>], kind: Distribution) -> Vec<Tensor> {
    shaped(shapes, |i, len| data(kind, len, i as u64))
}

/// In buffers of their own, and in one arena off the alignment with the kernels that hardware gets.
fn check(gpu: &Gpu, tensors: &[Tensor], clip: &Clip) -> (Trace, Vec<Tensor>) {
    // Given this, software adapters too cut long units into workgroups.
    let clipper = gpu.clipper_with(ClipperOptions::default().workgroup_size(64));
    gpu.same_in(&clipper, tensors, Placing::arena(12, 4), clip);
    gpu.same(tensors, clip)
}

/// The same, and what a plain program makes of it, which clips something.
fn check_plainly(gpu: &Gpu, tensors: &[Tensor], clip: &Clip, tolerance: f64) -> Trace {
    let (trace, after) = check(gpu, tensors, clip);
    let answer = plain::clip(tensors, clip);
    assert_all_close(&after, &answer.values, tolerance, &format!("{clip:?}"));
    assert_eq!(trace.report.clipped_segments as usize, answer.clipped, "{clip:?}");
    assert!(answer.clipped > 0, "{clip:?}");
    trace
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
    for units in [Units::OutputFirst, Units::OutputLast, Units::over(&[0]), Units::over(&[])] {
        let tensors = tensors(&SHAPES, Distribution::Uniform(1.0));
        check_plainly(&gpu, &tensors, &Clip::per_unit_norm(0.6f32, units), SCALED);
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
        let tensors = shaped(&[shape], |_, len| data(Distribution::Uniform(3.0), len, 9));
        check_plainly(&gpu, &tensors, &Clip::per_unit_norm(2.0, Units::over(over)), SCALED);
    }
}

/// A unit's norm has the bits of the norm of a tensor that holds only that unit.
#[test]
fn a_unit_is_a_tensor_of_its_own() {
    let Some(gpu) = gpu() else { return };
    for kind in [Distribution::Bits, Distribution::Spike, Distribution::Alternating, Distribution::Subnormal]
    {
        for norm in NORMS {
            for shape in [[40u64, 1100], [3, 20_000], [9, 70]] {
                let [rows, columns] = shape.map(|n| n as usize);
                let values = data(kind, rows * columns, 4);
                // The same transposed: columns.
                let turned = (0..columns).flat_map(|c| (0..rows).map(move |r| r * columns + c));
                let turned: Vec<f32> = turned.map(|at| values[at]).collect();
                let alone = common::named(values.chunks(columns).map(<[f32]>::to_vec));
                let (alone, _) = traced(&alone, &Clip::per_tensor_norm(1.0).norm_type(norm)).unwrap();
                let norms =
                    |trace: &Trace| trace.outcomes.iter().map(|o| o.norm.to_bits()).collect::<Vec<_>>();
                let whole = Tensor::new("t0", values).shape(&shape);
                let turned = Tensor::new("t0", turned).shape(&[shape[1], shape[0]]);
                for (tensor, units) in [(whole, Units::OutputFirst), (turned, Units::over(&[0]))] {
                    let (cut, _) = check(&gpu, &[tensor], &Clip::per_unit_norm(1.0, units).norm_type(norm));
                    assert_eq!(norms(&cut), norms(&alone), "{units:?} {kind:?} {norm:?} {shape:?}");
                }
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
        let mut values = data(Distribution::Uniform(1.0), height * width, 2);
        if width > 1000 {
            values.iter_mut().enumerate().for_each(|(i, v)| *v = if i % 16_000 == 0 { 1.0 } else { 0.59 });
        }
        let tensor = Tensor::new("t0", &values).shape(&[height as u64, width as u64]);
        let clip = Clip::per_unit_norm(f32::INFINITY, units).norm_type(NormType::P(3.0));
        let pass = gpu.clipper.prepare(&gpu.place(&[tensor], Placing::APART).grads, &clip).unwrap();
        gpu.run(&pass);
        for (u, outcome) in gpu.read::<Outcome>(pass.outcomes()).iter().enumerate() {
            let (first, step, len) = if rows { (u * width, 1, width) } else { (u, width, height) };
            let unit = (0..len).map(|i| f64::from(values[first + i * step]));
            let (want, most) = (plain::norm(unit, NormType::P(3.0)), power_on_adapter(3.0, len).min(3e-6));
            assert_close([outcome.norm], [want], most, 0.0, &format!("unit {u}"));
        }
    }
}

#[test]
fn rows_over_several_tensors() {
    let Some(gpu) = gpu() else { return };
    for n in [1u64, 2, 255, 256, 257, 3000] {
        let shapes: [&[u64]; 6] = [&[n, 3], &[n, 3], &[n, 15, 3], &[n, 3], &[n, 4], &[n]];
        let tensors = tensors(&shapes, Distribution::Uniform(1.0));
        let (trace, after) = check(&gpu, &tensors, &Clip::per_row_norm(4.4f32));
        let answer = plain::clip(&tensors, &Clip::per_row_norm(4.4f32));
        assert_all_close(&after, &answer.values, SCALED_BELOW, &format!("{n} rows"));
        assert_eq!(trace.report.clipped_segments as usize, answer.clipped, "{n} rows");
        assert!(trace.report.segments.is_empty());
    }
    // Long rows take a workgroup each; rows beyond a chunk several.
    check(&gpu, &tensors(&[[3, 20_000], [3, 700], [3, 2]], Distribution::Bits), &Clip::per_row_norm(1e30));
}

/// Optax' own example: two of four are clipped.
#[test]
fn optax_per_example() {
    let Some(gpu) = gpu() else { return };
    let values = [vec![0.0, -0.5, 3.0, 4.0, 5.0, 6.0, 0.0, 0.0], vec![0.0, 5.0, -3.0, 0.0]];
    let tensors = shaped(&[[4, 2], [4, 1]], |i, _| values[i].clone());
    let (trace, after) = check(&gpu, &tensors, &Clip::per_row_norm(1.0));
    assert_eq!(trace.report.clipped_segments, 2);
    let after = floats(&after);
    let column = |t: &[f32], c: usize, width: usize| -> f32 { t.iter().skip(c).step_by(width).sum() };
    let sums = [column(&after[0], 0, 2), column(&after[0], 1, 2), column(&after[1], 0, 1)];
    assert_close(sums, [1.021_878_4, 0.782_822_6, 0.348_538_2], 0.0, SEVEN_DIGITS, "sums");
}

/// Rows beyond those in use are not read, count for nothing and keep every bit.
#[test]
fn the_number_of_rows_changes_between_steps() {
    let Some(gpu) = gpu() else { return };
    // Long rows then take workgroups, 1,100 of them several to one.
    let clipper = gpu.clipper_with(ClipperOptions::default().workgroup_size(64));
    for (n, long) in [(600, 3u64), (600, 300), (1100, 300)] {
        let all = tensors(&[[n, long], [n, 2]], Distribution::Uniform(1.0));
        let clip = Clip::per_row_norm(0.9).unscale(0.5);
        for used in [0, 1, 255, 256, 300, 599, 600] {
            let own = shaped(&[[used, long], [used, 2]], |i, len| all[i].data.floats()[..len].to_vec());
            let (trace, after) = traced(&own, &clip).unwrap();
            // NaN beyond: it would show.
            let beyond = |first: &Tensor, all: &Tensor| {
                let mut values = first.data.floats();
                values.resize(all.data.len(), f32::NAN);
                Tensor { data: values.into(), ..all.clone() }
            };
            let filled =
                |own: &[Tensor]| -> Vec<Tensor> { own.iter().zip(&all).map(|(o, a)| beyond(o, a)).collect() };
            let placed = gpu.place(&filled(&own), Placing::APART);
            let pass = clipper.prepare(&placed.grads, &clip).unwrap();
            pass.set_rows(&gpu.queue, used).unwrap();
            let report = gpu.run(&pass);
            assert_eq!(report.clipped_segments, trace.report.clipped_segments, "{used} of {long}");
            assert_eq!(report.non_finite(), 0);
            let norms = |r: &gradclip::Report| r.tensors.iter().map(|t| t.norm).collect::<Vec<_>>();
            assert_eq!(norms(&report), norms(&trace.report));
            assert_same(&placed.read(&gpu).unwrap(), &filled(&after), false, &format!("{used} of {long}"));
            assert!(pass.set_rows(&gpu.queue, n + 1).is_err());
        }
    }
}

#[test]
fn groups_with_limits_of_their_own() {
    let Some(gpu) = gpu() else { return };
    let (a, b, free) = (Named::new("a", 2.0), Named::new("b", f32::INFINITY), Named::excluded("free"));
    let groups = [Some(a), None, Some(free), Some(b), Some(a), Some(free), None];
    let mut tensors = common::named((0..7).map(|i| data(Distribution::Uniform(1.0), 40 + i, i as u64)));
    tensors.iter_mut().zip(groups).for_each(|(tensor, group)| tensor.group = group);
    for total in [None, Some(1.0), Some(7.0), Some(1e9)] {
        let clip = total.map_or(Clip::per_group_norm(3.0), |t| Clip::per_group_norm(3.0).total(t));
        let (trace, after) = gpu.same(&tensors, &clip);
        let names: Vec<_> = trace.report.segments.iter().map(|s| s.name.as_deref()).collect();
        assert_eq!(names, [Some("a"), None, Some("free"), Some("b")]);
        assert_all_close(&after, &plain::clip(&tensors, &clip).values, SCALED, &format!("total {total:?}"));
        let kept = tensors.iter().filter(|t| !t.excluded()).flat_map(|t| t.data.values());
        let whole = total.map(|_| plain::norm(kept, NormType::Two));
        assert_close(trace.report.total.map(|t| t.norm), whole, EIGHT_DIGITS, 0.0, "total");
    }
}

#[test]
fn a_total_limit_beside_tensors_units_and_rows() {
    let Some(gpu) = gpu() else { return };
    let mut tensors = tensors(&[[30, 7], [30, 300]], Distribution::Uniform(1.0));
    for clip in
        [Clip::per_tensor_norm(20.0), Clip::per_unit_norm(8.0, Units::OutputFirst), Clip::per_row_norm(9.0)]
    {
        for total in [0.5, 40.0, 1e9] {
            let (trace, _) = check(&gpu, &tensors, &clip.total(total));
            assert!(trace.report.total.is_some());
        }
    }
    // A non-finite element poisons the whole set, unless it is replaced.
    let mut values = tensors[0].data.floats();
    values[5] = f32::NAN;
    tensors[0].data = values.into();
    for policy in [NonFinite::Skip, NonFinite::Zero, NonFinite::Sanitize] {
        for clip in [Clip::per_tensor_norm(20.0), Clip::per_unit_norm(8.0, Units::OutputFirst)] {
            let (trace, after) = check(&gpu, &tensors, &clip.total(4.0).on_non_finite(policy));
            assert_eq!(trace.report.first_non_finite(), Some("t0"));
            let data: Vec<Data> = after.iter().map(|t| t.data.clone()).collect();
            match policy {
                NonFinite::Skip => assert_same(&data, &tensors, false, "skipped"),
                NonFinite::Zero => assert!(data.iter().flat_map(Data::values).all(|x| x == 0.0)),
                _ => assert!(common::norm(&floats(&after)) <= 4.0 * (1.0 + NORM_AFTER)),
            }
        }
    }
}

/// A NaN in one unit changes no bit of another, whatever the policy.
#[test]
fn non_finite_units_do_not_touch_the_others() {
    let Some(gpu) = gpu() else { return };
    let mut values = data(Distribution::Uniform(1.0), 2000, 5);
    let good = Tensor::new("t0", &values).shape(&[50, 40]);
    (values[40 * 7 + 3], values[40 * 9]) = (f32::NAN, f32::INFINITY);
    let bad = Tensor { data: values.into(), ..good.clone() };
    for (units, in_bad) in [
        (Units::OutputFirst, (|e: usize| e / 40 == 7 || e / 40 == 9) as fn(usize) -> bool),
        (Units::over(&[0]), |e| e % 40 == 3 || e % 40 == 0),
    ] {
        for policy in [NonFinite::Skip, NonFinite::Zero, NonFinite::Sanitize, NonFinite::Nan] {
            let clip = Clip::per_unit_norm(1.0, units).on_non_finite(policy);
            let (_, clean) = traced(std::slice::from_ref(&good), &clip).unwrap();
            let (trace, after) = gpu.same(std::slice::from_ref(&bad), &clip);
            assert_eq!(trace.report.non_finite(), 2);
            let same = |e: usize| after[0].data.bits(e) == clean[0].data.bits(e);
            assert!((0..2000).all(|e| in_bad(e) || same(e)), "{policy:?} {units:?}");
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
