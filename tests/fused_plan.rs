//! The plan of work on gradients with what belongs to them, without a device.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashSet;

use gradclip::layout::LEN_BITS;
use gradclip::plan::{FusedPlan, Operands, Placement, Plan, PlanLimits, Precision, RowWise};
use gradclip::{Clip, DType, Group, PlanError, PrepareError};
use gradclip_verify::{budget, inputs};
use proptest::prelude::*;

fn limits(slots: u32, bindings: u32) -> PlanLimits {
    PlanLimits { slots, bindings, ..inputs::limits() }
}

/// Where a tensor lies: buffer and first byte.
type At = (usize, u64);

/// A gradient with three tensors updated with it.
fn operands(i: usize, elements: u64, dtype: DType, [g, p, m, v]: [At; 4]) -> Operands {
    let at = |(buffer, offset): At, dtype| Placement {
        name: format!("t{i}"),
        buffer,
        offset,
        buffer_size: 1 << 40,
        elements,
        dtype,
        ..Placement::default()
    };
    let updated = [p, m, v].map(|a| at(a, DType::F32)).to_vec();
    Operands { gradient: at(g, dtype), updated, lr_scale: 1.0, ..Operands::default() }
}

fn plan(tensors: &[Operands], limits: &PlanLimits) -> Result<FusedPlan, PrepareError> {
    let gradients: Vec<Placement> = tensors.iter().map(|t| t.gradient.clone()).collect();
    Plan::new(&gradients, &Clip::measure(), limits).unwrap().fused(tensors, limits)
}

/// Every element of every tensor is worked on once, inside the windows bound, which never overlap.
fn check(fused: &FusedPlan, tensors: &[Operands], limits: &PlanLimits) {
    let (mut met, mut worked_on) = (HashSet::new(), vec![0; tensors.len()]);
    for (dispatch, pattern) in &fused.dispatches {
        let (all, a_slot) = (&dispatch.windows, pattern.bindings());
        let mixed = matches!(pattern.precision(), Precision::Mixed(_));
        assert_eq!(pattern.operands(), 4 + usize::from(mixed));
        let mut words = HashSet::new();
        assert!(all.len() <= limits.bindings as usize && all.len() / a_slot <= limits.slots as usize);
        for (i, a) in all.iter().enumerate() {
            assert!(a.offset % limits.alignment == 0 && a.size % 4 == 0 && a.size <= limits.max_binding);
            for b in &all[..i] {
                let apart =
                    a.buffer != b.buffer || a.offset >= b.offset + b.size || b.offset >= a.offset + a.size;
                assert!(apart, "{a:?} and {b:?} overlap");
            }
        }
        for row in &fused.rows[dispatch.rows.start as usize..dispatch.rows.end as usize] {
            let t = &tensors[row.tensor as usize];
            let (slot, len) = (row.slot_len >> LEN_BITS, u64::from(row.slot_len & ((1 << LEN_BITS) - 1)));
            let starts = [row.start, row.parameter, row.moment, row.second_moment, row.half];
            let places = std::iter::once(&t.gradient).chain(&t.updated);
            for ((place, start), binding) in places.zip(starts).zip(pattern.binding_of()) {
                let (window, size) = (all[slot as usize * a_slot + binding], place.dtype.size());
                assert_eq!(window.buffer, place.buffer);
                let at = window.offset + u64::from(start) * size;
                assert_eq!(at, place.offset + u64::from(row.first) * size, "{} at {}", place.name, row.first);
                assert!(at + len * size <= window.offset + window.size);
            }
            if pattern.precision() != Precision::Single {
                // Rows begin with a word, or are one element, and no word is another row's of the same dispatch.
                let operand = if mixed { 4 } else { 1 };
                let window = all[slot as usize * a_slot + pattern.binding_of().nth(operand).unwrap()];
                assert!(row.half % 2 == 0 || len == 1, "{row:?}");
                let first = window.offset / 4 + u64::from(row.half) / 2;
                let last = window.offset / 4 + (u64::from(row.half) + len - 1) / 2;
                for word in HashSet::from([first, last]) {
                    assert!(
                        words.insert((window.buffer, word)),
                        "word {word} of buffer {} twice",
                        window.buffer
                    );
                }
            }
            for e in (u64::from(row.first)..u64::from(row.first) + len).step_by(1000) {
                assert!(met.insert((row.tensor, e)));
            }
            assert_eq!(t.gradient.dtype, dispatch.dtype);
        }
    }
    for (row, len) in fused.rows.iter().map(|row| (row, row.slot_len & ((1 << LEN_BITS) - 1))) {
        worked_on[row.tensor as usize] += u64::from(len);
    }
    let elements: Vec<u64> = tensors.iter().map(|t| t.gradient.elements).collect();
    assert_eq!(worked_on, elements);
}

#[test]
fn ten_thousand_tensors_take_one_dispatch() {
    let n = 10_000u64;
    // An arena each, one for all with everything of a tensor side by side, and the same unaligned.
    let apart = |i: u64| -> [At; 4] { [(0, i * 400), (1, i * 400), (2, i * 400), (3, i * 400)] };
    let together = |i: u64| [0, 1, 2, 3].map(|role| (0, (i * 4 + role) * 400));
    let blocks = |i: u64| [0, 1, 2, 3].map(|role| (0, (role * n + i) * 400));
    for place in [&apart as &dyn Fn(u64) -> [At; 4], &together, &blocks] {
        let tensors: Vec<Operands> =
            (0..n).map(|i| operands(i as usize, 100, DType::F32, place(i))).collect();
        let limits = limits(7, 30);
        let fused = plan(&tensors, &limits).unwrap();
        check(&fused, &tensors, &limits);
        assert_eq!(fused.dispatches.len(), 1);
    }
}

#[test]
fn separate_buffers_fill_the_slots() {
    let own = |i: usize| [4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 3].map(|buffer| (buffer, 0));
    let tensors: Vec<Operands> = (0..148).map(|i| operands(i, 70_000, DType::F32, own(i))).collect();
    for (bindings, dispatches) in [(29, 22), (5, 148), (4, 148)] {
        let limits = limits(7, bindings);
        let fused = plan(&tensors, &limits).unwrap();
        check(&fused, &tensors, &limits);
        assert_eq!(fused.dispatches.len(), dispatches, "{bindings} bindings");
    }
    let refused = plan(&tensors, &limits(7, 3)).unwrap_err();
    assert!(
        matches!(refused, PrepareError::Plan(PlanError::Limit { required: 7, given: 6, .. })),
        "{refused}"
    );
}

#[test]
fn larger_than_a_binding_is_cut() {
    // 154 MB each, as GPT-2's embedding: two windows of every tensor.
    let tensors = [operands(0, 38_597_376, DType::F32, [(0, 0), (1, 0), (2, 0), (3, 0)])];
    let limits = limits(7, 29);
    let fused = plan(&tensors, &limits).unwrap();
    check(&fused, &tensors, &limits);
    assert!(fused.dispatches.len() <= 2, "{}", fused.dispatches.len());
}

#[test]
fn what_does_not_fit_a_gradient_is_refused() {
    let good = || operands(0, 10, DType::F32, [(0, 0), (1, 0), (2, 0), (3, 0)]);
    let limits = limits(7, 29);
    let error = |tensors: &[Operands]| match plan(tensors, &limits) {
        Err(PrepareError::Plan(error)) => error,
        other => panic!("{other:?}"),
    };
    let mut short = good();
    short.updated[1].elements = 9;
    assert!(matches!(error(&[short]), PlanError::Operands { required: 10, given: 9, .. }));
    let mut half = good();
    half.updated[0].dtype = DType::F16;
    assert!(matches!(error(&[half]), PlanError::Operands { required: 4, given: 2, .. }));
    let mut more = good();
    more.updated.extend([more.updated[0].clone(), more.updated[0].clone(), more.updated[0].clone()]);
    assert!(matches!(error(&[more]), PlanError::Operands { required: 5, given: 6, .. }));
    let mut same = good();
    same.updated[1].buffer = 1;
    assert!(matches!(error(&[same]), PlanError::Overlap { .. }));
    let gradients = [good().gradient, good().gradient];
    let plan = Plan::new(&gradients[..1], &Clip::measure(), &limits).unwrap();
    let two = [good(), good()];
    assert!(matches!(
        plan.fused(&two, &limits),
        Err(PrepareError::Plan(PlanError::Operands { required: 1, given: 2, .. }))
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(budget::JOINT_PLAN_CASES))]

    /// Tensors anywhere: roles in buffers of their own or shared, in any order, with any gaps.
    #[test]
    fn every_element_is_worked_on_once(
        tensors in prop::collection::vec((0u64..40_000, 0u8..2, [0usize..4, 0..4, 0..4, 0..4], 0u64..90), 0..25),
        slots in 1u32..9,
        bindings in 4u32..30,
        alignment in prop::sample::select(vec![4u64, 32, 256]),
        max_binding in (1u64 << 18)..(1 << 21),
    ) {
        let small = PlanLimits { max_workgroups: 300, workgroup_size: 64, storage: 8, ..limits(slots, bindings) };
        let limits = PlanLimits { alignment, max_binding: max_binding & !3, ..small };
        let mut ends = [0u64; 4];
        let mut joined_up = Vec::new();
        for (i, (elements, half, buffers, gap)) in tensors.into_iter().enumerate() {
            let dtype = if half == 1 { DType::F16 } else { DType::F32 };
            let mut role = 0;
            let places = buffers.map(|buffer| {
                let size = if role == 0 { dtype.size() } else { 4 };
                role += 1;
                let at = ends[buffer] + gap * 4;
                ends[buffer] = (at + elements * size).next_multiple_of(4);
                (buffer, at)
            });
            joined_up.push(operands(i, elements, dtype, places));
        }
        let fused = plan(&joined_up, &limits).unwrap();
        check(&fused, &joined_up, &limits);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(budget::JOINT_PLAN_CASES))]

    /// Parameters of 16 bits, packed so that two share words: all in one buffer with everything else, or in one of their own.
    #[test]
    fn halves_are_written_word_by_word(
        tensors in prop::collection::vec((prop_oneof![1u64..40_000, 1u64..100], 0u64..2, 0u8..3), 1..25),
        own in prop::bool::ANY,
        alike in prop::bool::ANY,
        bindings in 5u32..30,
        alignment in prop::sample::select(vec![4u64, 32, 256]),
    ) {
        let limits = PlanLimits { alignment, max_binding: 1 << 20, storage: 8, ..limits(7, bindings) };
        // Halves lie one behind the other, in a buffer of their own or before all else.
        let halves: u64 = tensors.iter().map(|(elements, gap, _)| 2 * (elements + gap)).sum();
        let mut ends = [0, if own { 0 } else { halves }];
        let mut all = Vec::new();
        for (i, (elements, gap, kept)) in tensors.into_iter().enumerate() {
            let at = |end: &mut u64, size: u64, gap: u64| {
                let at = (*end + gap * size).next_multiple_of(size);
                *end = at + elements * size;
                at
            };
            let half = (usize::from(own), at(&mut ends[0], 2, gap));
            let places = [0; 4].map(|buffer| (buffer, at(&mut ends[1], 4, gap)));
            let (precision, operands) = match if alike { 1 } else { kept } {
                0 => (Precision::Single, operands(i, elements, DType::F32, places)),
                1 => {
                    let mut operands = operands(i, elements, DType::F32, places);
                    let dtype = DType::F16;
                    operands.updated.push(Placement { dtype, buffer: half.0, offset: half.1, ..operands.gradient.clone() });
                    (Precision::Mixed(dtype), operands)
                }
                _ => {
                    let mut operands = operands(i, elements, DType::F32, [places[0], half, places[2], places[3]]);
                    operands.updated[0].dtype = DType::Bf16;
                    (Precision::Stochastic, operands)
                }
            };
            all.push(Operands { precision, ..operands });
        }
        let fused = plan(&all, &limits).unwrap();
        check(&fused, &all, &limits);
    }
}

/// Rows name segments that have an outcome, those of excluded groups among them.
#[test]
fn rows_name_segments_that_are_decided() {
    let mut tensors: Vec<Operands> = (0..5)
        .map(|i| operands(i, 20_000, DType::F32, [0, 1, 2, 3].map(|role| (role, i as u64 * 80_000))))
        .collect();
    for tensor in &mut tensors[2..4] {
        tensor.gradient.group = Some(Group::excluded("biases"));
    }
    let placements: Vec<Placement> = tensors.iter().map(|t| t.gradient.clone()).collect();
    let limits = limits(7, 30);
    for clip in [Clip::measure(), Clip::per_tensor_norm(1.0)] {
        let plan = Plan::new(&placements, &clip, &limits).unwrap();
        let fused = plan.fused(&tensors, &limits).unwrap();
        let segments: Vec<u32> = fused.rows.iter().map(|row| row.segment).collect();
        assert!(segments.iter().all(|&segment| (segment as usize) < plan.segment_count()), "{segments:?}");
        assert!(plan.segment_count() > 1);
    }
}

/// Every part of a table meets every chunk of the gradient, inside windows that bindings hold and that never overlap.
#[test]
fn rows_of_tables_meet_every_part_of_them() {
    let limits = PlanLimits { max_binding: 1 << 27, ..limits(7, 5) };
    // GPT-2's embedding; 70 million entries' rows; small ones beside their moments in one buffer.
    let apart = |i: u64| (1 + i as usize, 12);
    let packed = |i: u64| (1, i * 40_000);
    for (entries, [rows, width], place) in [
        (4096u64, [50_257u64, 768u64], &apart as &dyn Fn(u64) -> At),
        (70_000_000, [90_000_000, 1], &apart),
        (100, [1000, 10], &packed),
        (0, [1000, 10], &packed),
    ] {
        let [p, m, v] = [0, 1, 2].map(place);
        let mut tensor = operands(0, entries * width, DType::F32, [(0, 4), p, m, v]);
        tensor.updated.iter_mut().for_each(|at| at.elements = rows * width);
        tensor.table = Some([rows, width]);
        let tensors = [tensor];
        let fused = plan(&tensors, &limits).unwrap();
        assert!(fused.dispatches.is_empty());
        let (mut gradient, mut table) = (0u128, 0u128);
        for RowWise { dispatch, pattern, tensor, part } in &fused.row_wise {
            assert!(pattern.is_by_rows() && *tensor == 0 && u64::from(part.width) == width);
            let windows = &dispatch.windows;
            for (i, a) in windows.iter().enumerate() {
                assert!(a.offset % limits.alignment == 0 && a.size <= limits.max_binding, "{a:?}");
                let ends = |b: &gradclip::plan::Window| b.offset + b.size;
                let apart = |b: &gradclip::plan::Window| {
                    a.buffer != b.buffer || a.offset >= ends(b) || b.offset >= ends(a)
                };
                assert!(windows[..i].iter().all(apart), "{windows:?}");
            }
            let bindings: Vec<usize> = pattern.binding_of().collect();
            for row in &fused.rows[dispatch.rows.start as usize..dispatch.rows.end as usize] {
                let len = u64::from(row.slot_len & ((1 << LEN_BITS) - 1));
                let at = windows[0].offset + u64::from(row.start) * 4;
                assert_eq!((row.slot_len >> LEN_BITS, at), (0, 4 + u64::from(row.first) * 4));
                assert!(at + len * 4 <= windows[0].offset + windows[0].size);
                let starts = [row.parameter, row.moment, row.second_moment];
                for ((place, start), binding) in tensors[0].updated.iter().zip(starts).zip(&bindings[1..]) {
                    let (window, at) = (windows[*binding], u64::from(start) * 4);
                    assert_eq!(window.offset + at, place.offset + u64::from(part.first) * 4);
                    assert!(window.buffer == place.buffer && at + u64::from(part.len) * 4 <= window.size);
                }
                gradient += u128::from(len);
                table += u128::from(len) * u128::from(part.len);
            }
        }
        let (n, all) = (u128::from(entries * width), u128::from(rows * width));
        assert_eq!(table, n * all);
        assert!(gradient >= n && (all < 1 << 25 || gradient > n));
    }
    // The list of rows takes a buffer more.
    let mut tensor = operands(0, 10, DType::F32, [(0, 0), (1, 0), (2, 0), (3, 0)]);
    tensor.table = Some([1, 10]);
    let refused = plan(&[tensor], &PlanLimits { bindings: 4, ..limits }).unwrap_err();
    assert!(
        matches!(refused, PrepareError::Plan(PlanError::Limit { required: 8, given: 7, .. })),
        "{refused}"
    );
}
