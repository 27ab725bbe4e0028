//! Against plain f64: norms within 0.65 ulp, coefficients the correctly rounded quotient, elements
//! the rounded product, and nothing touched where nothing need be.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::tolerance::NORM_ULP;
use common::{
    DISTRIBUTIONS, Distribution, NORMS, assert_scaled, bits, data, gpu, norm, norm_as, on_cpu, ulps,
};
use gradclip::cpu::{self, GradMut};
use gradclip::ndarray::{Array2, Axis};
use gradclip::{Clip, Report};

const SIZES: [usize; 18] =
    [1, 3, 4, 5, 31, 32, 33, 255, 256, 257, 1023, 1024, 1025, 16383, 16384, 16385, 65_536, 100_000];

type Arm<'a> = (&'a str, &'a dyn Fn(&[Vec<f32>], &Clip) -> (Report, Vec<Vec<f32>>));

fn check(arm: &Arm<'_>, tensors: &[Vec<f32>], what: &str) {
    let (who, run) = arm;
    for kind in NORMS {
        let exact = norm_as(tensors, kind);
        let measured = run(tensors, &Clip::measure().norm_type(kind)).0.norm().unwrap();
        let error = ulps(measured, exact);
        assert!(
            error <= NORM_ULP,
            "{who}: {what}: {kind:?} norm {measured:e}, exactly {exact:e}: {error} ulp"
        );
    }
    let (report, after) = run(tensors, &Clip::measure());
    let measured = report.norm().unwrap();
    assert_eq!(bits(&after), bits(tensors), "{who}: {what}: measuring changed gradients");
    for (t, of_tensor) in tensors.iter().zip(&report.tensors) {
        let exact = norm(std::slice::from_ref(t));
        assert!(ulps(of_tensor.norm, exact) <= NORM_ULP, "{who}: {what}: tensor norm");
    }
    // Never clipped at the norm itself, always just below.
    let at = measured as f32;
    if at.is_finite() && at > 0.0 {
        let (report, after) = run(tensors, &Clip::global_norm(at));
        assert!(!report.clipped() && bits(&after) == bits(tensors), "{who}: {what}: clipped at its norm");
        assert_eq!(report.coefficient(), Some(1.0));
        assert!(run(tensors, &Clip::global_norm(at.next_down())).0.clipped(), "{who}: {what}: just below");
    }
    for threshold in [measured as f32 / 3.0, 1.0, 1e-3] {
        if !threshold.is_normal() || f64::from(threshold) >= measured {
            continue;
        }
        let (report, after) = run(tensors, &Clip::global_norm(threshold));
        let coefficient = report.coefficient().unwrap() as f32;
        // f64 division of 24-bit operands, rounded to f32, is the correctly rounded quotient.
        assert_eq!(coefficient, (f64::from(threshold) / measured) as f32, "{who}: {what}");
        if coefficient.is_normal() {
            assert_scaled(tensors, &after, coefficient, &format!("{who}: {what}"));
        }
    }
}

#[test]
fn sizes_and_magnitudes() {
    let gpu = gpu();
    let on_gpu = |t: &[Vec<f32>], c: &Clip| gpu.as_ref().map_or_else(|| on_cpu(t, c), |gpu| gpu.clip(t, c));
    for arm in [("CPU", &on_cpu as _), ("GPU", &on_gpu as _)] as [Arm<'_>; 2] {
        for (k, kind) in DISTRIBUTIONS.into_iter().enumerate() {
            for (i, &size) in SIZES.iter().enumerate() {
                // The GPU takes every third combination of the many: bit equality with the CPU over
                // all of them is tests/equality.rs' matter.
                if arm.0 == "GPU" && (i + k) % common::budget::ADAPTER_SHARE != 0 {
                    continue;
                }
                check(&arm, &[data(kind, size, 11)], &format!("{kind:?}, {size} elements"));
            }
        }
        let many: Vec<_> = (0..148).map(|i| data(DISTRIBUTIONS[i % 12], 1 + i * 13, i as u64)).collect();
        check(&arm, &many, "148 tensors of all kinds");
    }
}

#[test]
fn views_of_any_layout_count_in_logical_order() {
    let values = data(Distribution::Uniform(10.0), 200 * 300, 4);
    let array = Array2::from_shape_vec((200, 300), values).unwrap();
    let clip = Clip::global_norm(1.0);
    let run = |mut array: Array2<f32>, transposed: bool| {
        let view = if transposed { array.view_mut().reversed_axes() } else { array.view_mut() };
        let trace = cpu::clip_traced(&mut [GradMut::view("a", view)], &clip).unwrap();
        (trace.partials, array)
    };
    let rows = run(array.clone(), false);
    // The same elements, strided: every second column of a wider array.
    let mut wide = Array2::from_elem((200, 600), f32::NAN);
    wide.slice_mut(gradclip::ndarray::s![.., ..;2]).assign(&array);
    let half = wide.slice_mut(gradclip::ndarray::s![.., ..;2]);
    let trace = cpu::clip_traced(&mut [GradMut::view("half", half)], &clip).unwrap();
    assert_eq!(trace.partials, rows.0);
    assert_eq!(wide.slice(gradclip::ndarray::s![.., ..;2]), rows.1);
    assert!(wide.slice(gradclip::ndarray::s![.., 1..;2]).iter().all(|x| x.is_nan()));
    // Transposed twice: stored by columns, seen by rows.
    let stored = array.t().as_standard_layout().into_owned();
    let columns = run(stored, true);
    assert_eq!(columns.0, rows.0);
    assert_eq!(columns.1.t(), rows.1);
    // An empty axis and a single element.
    let mut empty = Array2::<f32>::zeros((0, 5));
    let mut one = gradclip::ndarray::arr0(-7.0f32);
    let mut grads = [GradMut::view("empty", empty.view_mut()), GradMut::view("one", one.view_mut())];
    assert_eq!(cpu::clip(&mut grads, &Clip::global_norm(3.5)).unwrap().norm(), Some(7.0));
    assert_eq!(one.into_scalar(), -3.5);
    assert_eq!(array.len_of(Axis(0)), 200);
}
