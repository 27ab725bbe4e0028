//! The plan alone, without a device: every element in exactly one chunk, every chunk inside its
//! window, windows within the limits, whatever the limits and the tensors.

#![allow(clippy::unwrap_used)]

use gradclip::layout::CHUNK;
use gradclip::plan::{Placement, Plan, PlanLimits};
use gradclip::{Clip, DType, NormType, PlanError, PrepareError, Units, wgpu};
use gradclip_verify::budget;
use gradclip_verify::inputs::limits;
use gradclip_verify::plans::{check, check_finish};
use proptest::prelude::*;

fn placement(buffer: usize, offset: u64, elements: u64) -> Placement {
    let name = format!("b{buffer}+{offset}");
    Placement {
        name,
        buffer,
        buffer_size: offset + elements * 4 + 1024,
        offset,
        elements,
        ..Placement::default()
    }
}

#[test]
fn one_workgroup_writes_every_sum_once() {
    let shaped = |i: usize, shape: [u64; 2]| {
        let elements = shape[0] * shape[1];
        let parameter = Some(Box::new(placement(1000 + i, 0, elements)));
        Placement { shape: Some(shape.into()), parameter, ..placement(i, 0, elements) }
    };
    let sets: [&[[u64; 2]]; 5] =
        [&[], &[[8, 3]], &[[8, 3], [8, 20_000], [8, 0], [8, 1]], &[[8, 3]; 256], &[[8, 700_000], [8, 9]]];
    for shapes in sets {
        let tensors: Vec<_> = shapes.iter().enumerate().map(|(i, &s)| shaped(i, s)).collect();
        for clip in [
            Clip::global_norm(1.0),
            Clip::per_tensor_norm(1.0),
            Clip::per_tensor_norm(1.0).total(1.0),
            Clip::per_unit_norm(1.0, Units::OutputFirst),
            Clip::per_unit_norm(1.0, Units::OutputFirst).total(1.0),
            Clip::agc(0.1, Units::OutputFirst),
            Clip::per_row_norm(1.0),
        ] {
            let plan = Plan::new(&tensors, &clip, &limits()).unwrap();
            assert_eq!(plan.finish.is_some(), plan.segment_count() <= 256);
            check_finish(&plan);
        }
    }
}

/// A workgroup for each 4,096 partials of a tensor that has more than three times as many; others keep theirs.
#[test]
fn long_tensors_are_added_up_in_blocks() {
    let chunk = u64::from(CHUNK);
    for (chunks, blocks) in [(12_288, None), (12_289, Some(4)), (61_036, Some(15))] {
        let tensors = [placement(0, 0, chunks * chunk), placement(1, 0, 100), placement(2, 0, 5000 * chunk)];
        let plan = Plan::new(&tensors, &Clip::measure(), &limits()).unwrap();
        check(&plan, &tensors, &limits());
        assert_eq!(plan.blocks.as_ref().map(|b| b.runs.len()), blocks.map(|blocks| blocks + 2), "{chunks}");
    }
}

/// Burn's Linear keeps outputs last: a team of 16 invocations a unit on hardware, an invocation on software. Units too short
/// for a team, or very many of them, stay with one.
#[test]
fn columns_have_teams_on_hardware() {
    let clip = Clip::per_unit_norm(1.0, Units::OutputLast);
    for (shape, teams, rows) in [
        ([4096, 4096], true, 256),
        ([4096, 4096], false, 16),
        ([15, 4096], true, 16),
        ([16, 4096], true, 256),
        ([64, 1 << 18], true, 1 << 10),
    ] {
        let tensor = Placement { shape: Some(shape.into()), ..placement(0, 0, shape[0] * shape[1]) };
        let limits = PlanLimits { teams, ..limits() };
        let plan = Plan::new(&[tensor], &clip, &limits).unwrap();
        assert_eq!(plan.unit_rows.len(), rows, "{shape:?}");
        let grid: u32 = plan.units.iter().map(|d| d.grid[0] * d.grid[1]).sum();
        assert_eq!(grid as usize, rows);
        // 65,536 invocations for the first.
        assert!(shape != [4096, 4096] || !teams || grid * limits.workgroup_size == 65_536);
    }
}

#[test]
fn a_tensor_larger_than_a_binding_is_split_at_a_chunk() {
    let gpt2_embedding = [placement(0, 4, 50_257 * 768)];
    let plan = Plan::new(&gpt2_embedding, &Clip::measure(), &limits()).unwrap();
    check(&plan, &gpt2_embedding, &limits());
    let windows: Vec<_> = plan.dispatches.iter().flat_map(|d| &d.windows).collect();
    assert_eq!(windows.len(), 2);
    // It begins off the alignment, so the windows overlap by less than one alignment and go apart.
    assert_eq!(plan.dispatches.len(), 2);
    let aligned = [placement(0, 0, 50_257 * 768)];
    assert_eq!(Plan::new(&aligned, &Clip::measure(), &limits()).unwrap().dispatches.len(), 1);
}

#[test]
fn beyond_2_to_the_32_elements_and_65535_workgroups() {
    let llama = [placement(0, 0, 5_000_000_000), placement(1, 256, 123)];
    let plan = Plan::new(&llama, &Clip::measure(), &limits()).unwrap();
    check(&plan, &llama, &limits());
    assert_eq!(plan.partials, 305_176 + 1);
    let large = PlanLimits { max_binding: u64::MAX, ..limits() };
    let plan = Plan::new(&llama, &Clip::measure(), &large).unwrap();
    check(&plan, &llama, &large);
    assert!(plan.dispatches.iter().any(|d| d.grid[1] > 1));
    // Scratch stays below 0.2 % of the gradients.
    assert!(plan.scratch_bytes() * 500 < 5_000_000_000 * 4);
}

#[test]
fn one_dispatch_for_any_number_of_tensors_in_an_arena() {
    for count in [1, 10, 1000, 10_000] {
        let tensors: Vec<_> = (0..count).map(|i| placement(0, i * 768 * 4, 768)).collect();
        let tensors: Vec<_> =
            tensors.into_iter().map(|t| Placement { buffer_size: 768 * 4 * count, ..t }).collect();
        let plan = Plan::new(&tensors, &Clip::measure(), &limits()).unwrap();
        check(&plan, &tensors, &limits());
        assert_eq!(plan.dispatches.len(), 1, "{count}");
    }
    // And as few as the slots allow for separate buffers.
    let tensors: Vec<_> = (0..148).map(|i| placement(i, 0, 1000)).collect();
    let plan = Plan::new(&tensors, &Clip::per_tensor_norm(1.0), &limits()).unwrap();
    check(&plan, &tensors, &limits());
    assert_eq!(plan.dispatches.len(), 148_usize.div_ceil(6));
    assert_eq!(plan.segment_count(), 148);
}

#[test]
fn large_windows_go_alone_where_limits_say_so() {
    let sizes = [1000, 16_384, 2000, 16_383, 50_000];
    let tensors: Vec<_> = (0..).zip(sizes).map(|(i, elements)| placement(i, 0, elements)).collect();
    let limits = PlanLimits { alone_from: 4 * 16_384, ..limits() };
    let plan = Plan::new(&tensors, &Clip::measure(), &limits).unwrap();
    check(&plan, &tensors, &limits);
    let bound: Vec<Vec<u64>> =
        plan.dispatches.iter().map(|d| d.windows.iter().map(|w| w.size / 4).collect()).collect();
    assert_eq!(bound, [vec![16_384], vec![50_000], vec![1000, 2000, 16_383]]);
}

#[test]
fn short_chunks_come_last_where_there_are_enough() {
    let at = |i: u64| placement(0, i * 80_000, [500, 17_000][i as usize % 2]);
    let tensors: Vec<_> = (0..40).map(|i| Placement { buffer_size: 40 * 80_000, ..at(i) }).collect();
    // Each long tensor ends in a short chunk too.
    for (short_from, short) in [(40, 40), (41, 0)] {
        let limits = PlanLimits { short_from, ..limits() };
        let plan = Plan::new(&tensors, &Clip::measure(), &limits).unwrap();
        check(&plan, &tensors, &limits);
        assert_eq!(plan.dispatches[0].short.len(), short);
    }
}

/// Where invocations add up units, too few of them or a norm of any p still take workgroups.
#[test]
fn long_units_take_workgroups_where_they_are_few_or_rounded() {
    let limits = PlanLimits { long_unit: 16_384, ..limits() };
    let clip = Clip::per_unit_norm(1.0, Units::OutputFirst);
    for (units, clip, side_by_side) in
        [(255, clip, false), (256, clip, true), (256, clip.norm_type(NormType::P(3.0)), false)]
    {
        let tensor = Placement { shape: Some([units, 1000].into()), ..placement(0, 0, units * 1000) };
        let plan = Plan::new(&[tensor], &clip, &limits).unwrap();
        assert_eq!(
            (plan.unit_rows.is_empty(), plan.rows.is_empty()),
            (!side_by_side, side_by_side),
            "{units}"
        );
    }
}

#[test]
fn what_does_not_fit_32_bits_is_refused() {
    let huge = Placement { buffer_size: u64::MAX, ..placement(0, 0, 1 << 60) };
    let e = Plan::new(&[huge], &Clip::measure(), &limits()).unwrap_err();
    assert!(
        matches!(e, PrepareError::Plan(PlanError::TooLarge { what: "chunks of 16,384 elements", .. })),
        "{e}"
    );
    let one_workgroup = PlanLimits { max_workgroups: 2, ..limits() };
    let e =
        Plan::new(&[placement(0, 0, 10 * u64::from(CHUNK))], &Clip::measure(), &one_workgroup).unwrap_err();
    assert_eq!(e.to_string(), "workgroups: required at most 4, given 10");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(budget::PLAN_CASES))]

    #[test]
    fn every_element_is_in_exactly_one_chunk(
        sizes in prop::collection::vec((0usize..4, 0u64..70_000, 0u64..40, any::<bool>()), 0..40),
        slots in 1u32..9,
        alone_from in prop::sample::select(vec![0, 1 << 12, 1 << 16, u64::MAX]),
        max_binding in (1u64 << 17)..(1 << 19),
        alignment in prop::sample::select(vec![4u64, 16, 32, 64, 256]),
        max_workgroups in 60u32..70_000,
        per_tensor in any::<bool>(),
        short_from in 0u64..20,
        vectors in any::<bool>(),
        block in prop::sample::select(vec![1u32, 2, 4096]),
    ) {
        let max_binding = max_binding & !3;
        let small = PlanLimits { workgroup_size: 64, storage: 8, ..limits() };
        let limits = PlanLimits { slots, bindings: slots, alone_from, short_from, vectors, block, max_binding, alignment, max_workgroups, ..small };
        let mut ends = [0u64; 8];
        let mut tensors = Vec::new();
        for &(buffer, elements, gap, half) in &sizes {
            // Both element types in one buffer; halves get an even start so that words stay whole.
            let dtype = if half { DType::Bf16 } else { DType::F32 };
            let offset = (ends[buffer] + gap * 4).next_multiple_of(4);
            ends[buffer] = (offset + elements * dtype.size()).next_multiple_of(4);
            tensors.push(Placement { dtype, ..placement(buffer, offset, elements) });
        }
        for t in &mut tensors {
            t.buffer_size = ends[t.buffer];
        }
        let clip = if per_tensor { Clip::per_tensor_norm(1.0) } else { Clip::measure() };
        let plan = Plan::new(&tensors, &clip, &limits).unwrap();
        check(&plan, &tensors, &limits);
    }
    /// Placements and limits that nobody would ask for: refused with an error or planned rightly.
    #[test]
    fn whatever_is_asked_for_is_planned_or_refused(
        asked in prop::collection::vec(
            (0usize..3, any_u64(), prop_oneof![0u64..50_000, any_u64()], any_u64(), 0u8..3), 0..12),
        slots in 1u32..40,
        alone_from in prop::sample::select(vec![0, 1 << 16, u64::MAX]),
        max_binding in prop_oneof![(1u64 << 17)..(1 << 20), any_u64().prop_map(|n| n.max(1 << 17))],
        alignment in prop::sample::select(vec![4u64, 32, 256, 4096]),
        max_workgroups in prop_oneof![1u32..10, 10u32..70_000],
        workgroup_size in prop::sample::select(vec![32u32, 64, 256]),
        vectors in any::<bool>(),
    ) {
        let limits = PlanLimits { slots, bindings: slots, alone_from, vectors, max_binding: max_binding & !3, alignment, max_workgroups, workgroup_size, storage: 8, ..limits() };
        let mut tensors: Vec<_> = asked
            .into_iter()
            .map(|(buffer, offset, elements, size, dtype)| Placement {
                // Between these only the tables would grow, to gigabytes.
                elements: if elements > 1 << 24 { elements | 1 << 42 } else { elements },
                buffer_size: size,
                dtype: [DType::F32, DType::F16, DType::Bf16][usize::from(dtype)],
                offset,
                ..placement(buffer, 0, 0)
            })
            .collect();
        let sizes: Vec<u64> = tensors.iter().map(|t| t.buffer_size).collect();
        for t in &mut tensors {
            // One size a buffer, that of the first tensor that names it.
            t.buffer_size = sizes.get(t.buffer).copied().unwrap_or(1 << 20);
        }
        if let Ok(plan) = Plan::new(&tensors, &Clip::measure(), &limits) {
            check(&plan, &tensors, &limits);
        }
    }
}

/// Small numbers, round ones and any.
fn any_u64() -> impl Strategy<Value = u64> {
    prop_oneof![
        3 => 0u64..100_000,
        2 => (0u32..64, 0u64..5).prop_map(|(shift, more)| (1u64 << shift).wrapping_sub(2).wrapping_add(more)),
        1 => any::<u64>(),
    ]
}

/// What the guide says of arenas, in numbers.
#[test]
fn an_arena_takes_fewer_dispatches_than_buffers() {
    const ELEMENTS: u64 = 768 * 768;
    let clip = Clip::global_norm(1.0);
    let dispatches = |tensors: &[Placement], limits: &wgpu::Limits| {
        let limits = PlanLimits { vectors: true, ..PlanLimits::new(limits, 256).unwrap() }; // as hardware
        Plan::new(tensors, &clip, &limits).unwrap().dispatches.len()
    };
    // 48 tensors, each in a buffer of its own, and the same in one.
    let apart = |i: u64| Placement {
        name: format!("w{i}"),
        buffer: i as usize,
        buffer_size: ELEMENTS * 4,
        elements: ELEMENTS,
        ..Placement::default()
    };
    let together = |i: u64| Placement {
        buffer: 0,
        buffer_size: 48 * ELEMENTS * 4,
        offset: i * ELEMENTS * 4,
        ..apart(i)
    };
    let (apart, together): (Vec<_>, Vec<_>) = ((0..48).map(apart).collect(), (0..48).map(together).collect());
    let least = wgpu::Limits::default();
    let more = wgpu::Limits { max_storage_buffers_per_shader_stage: 32, ..wgpu::Limits::default() };
    assert_eq!(dispatches(&apart, &least), 8); // 48 buffers, 6 slots
    assert_eq!(dispatches(&apart, &more), 2); // 30 slots
    assert_eq!(dispatches(&together, &least), 1);

    // One tensor moved by four bytes is read word by word, in a dispatch of its own.
    let mut odd = together.clone();
    odd[47].offset += 4;
    odd[47].elements -= 1;
    assert_eq!(dispatches(&odd, &least), 2);
}
