//! Every index that kernels compiled without wgpu's checks use, for random plans: written down from the kernels, not
//! from the plan. FusedPlan kernels' are walked in `fused_plan.rs`.

#![allow(clippy::unwrap_used, clippy::panic)]

use gradclip::layout::{CHUNK, COLUMNS, ChunkRow, LEN_BITS, MapRow, NONE, ROWS, SeamRow, UnitRow};
use gradclip::plan::{Combine, Dispatch, Placement, Plan, PlanLimits, Window};
use gradclip::{Clip, DType, PlanError, PrepareError, Scope, Units};
use gradclip_verify::budget;
use gradclip_verify::inputs::limits;
use proptest::prelude::*;

fn len_of(slot_len: u32) -> u32 {
    slot_len & ((1 << LEN_BITS) - 1)
}

/// The window of a row; a slot without one is out of range.
fn window_of(dispatch: &Dispatch, slot: u32) -> Window {
    dispatch.windows[slot as usize]
}

/// `word_of` of shared/dtype_*.wgsl.
fn word_of(element: u32, dtype: DType) -> u32 {
    if dtype.size() == 2 { element / 2 } else { element }
}

fn assert_word(word: u32, window: Window, what: &str) {
    assert!(u64::from(word) < window.size / 4, "{what}: word {word} of {window:?}");
}

/// reduce.wgsl and its like, which clamp to the last element; apply.wgsl, which ends at it.
fn check_words(row: &ChunkRow, dispatch: &Dispatch) {
    let window = window_of(dispatch, row.slot_len >> LEN_BITS);
    let len = len_of(row.slot_len);
    assert!((1..=CHUNK).contains(&len));
    assert_word(word_of(row.start + len - 1, dispatch.dtype), window, "a chunk's last");
}

/// `fetch` of shared/blocks.wgsl, with shared/access_*.wgsl by words or vectors.
fn check_blocks(row: &ChunkRow, dispatch: &Dispatch, vectors: bool) {
    let half = dispatch.dtype.size() == 2;
    // Columns a lane has of a turn, and bytes of a Row.
    let (columns, bytes) =
        if vectors { (4, 4 * dispatch.dtype.size()) } else { (if half { 2 } else { 1 }, 4) };
    let place_of = |element: u32| element / columns;
    let step = COLUMNS / columns;
    let window = window_of(dispatch, row.slot_len >> LEN_BITS);
    let last = len_of(row.slot_len) - 1;
    let astride = u32::from(half && !vectors && row.start % 2 == 1);
    assert!(
        !vectors || row.start.is_multiple_of(16 / dispatch.dtype.size() as u32),
        "a vector begins elsewhere"
    );
    for column in (0..COLUMNS).step_by(columns as usize) {
        for column in [column, column + astride] {
            for r in 0..ROWS {
                let at = match last == CHUNK - 1 {
                    true => place_of(row.start + column) + r * step,
                    false => place_of(row.start + (r * COLUMNS + column).min(last)),
                };
                assert!((u64::from(at) + 1) * bytes <= window.size, "row {r} of column {column}: {at}");
            }
        }
    }
}

/// apply_vectors.wgsl: whole chunks without a look at the end.
fn check_vectors(row: &ChunkRow, dispatch: &Dispatch) {
    let window = window_of(dispatch, row.slot_len >> LEN_BITS);
    let a_vector = 16 / dispatch.dtype.size() as u32;
    let len = len_of(row.slot_len);
    let end = (row.start + len) / a_vector;
    assert!(u64::from(end) * 16 <= window.size);
    assert!(len != CHUNK || row.start / a_vector + CHUNK / a_vector == end);
}

/// reduce_units.wgsl.
fn check_unit_row(row: &UnitRow, dispatch: &Dispatch, plan: &Plan, workgroup_size: u32) {
    let window = window_of(dispatch, row.slot);
    assert!(row.kept > 0 && row.reduced > 0 && row.units > 0);
    assert!(row.partial + row.units <= plan.partials && row.units <= workgroup_size);
    for lane in 0..row.units {
        let unit = row.first_unit + lane;
        let kept = (unit / row.kept).wrapping_mul(row.kept_high);
        let origin = row.base.wrapping_add(kept).wrapping_add((unit % row.kept).wrapping_mul(row.kept_low));
        for i in row.first..row.first + row.len {
            let element = match row.reduced_high {
                0 => origin.wrapping_add(i.wrapping_mul(row.reduced_low)),
                high => origin
                    .wrapping_add((i / row.reduced).wrapping_mul(high))
                    .wrapping_add((i % row.reduced).wrapping_mul(row.reduced_low)),
            };
            assert_word(word_of(element, dispatch.dtype), window, "a unit's element");
        }
    }
}

/// apply_units.wgsl: the segment of each element has an outcome.
fn check_map_row(row: &MapRow, dispatch: &Dispatch, plan: &Plan) {
    let window = window_of(dispatch, row.slot_len >> LEN_BITS);
    let len = len_of(row.slot_len);
    assert!(row.low > 0 && row.kept > 0 && row.high > 0 && row.outer > 0 && len > 0);
    assert_word(word_of(row.start + len - 1, dispatch.dtype), window, "a map's last");
    for e in row.first..row.first + len {
        let segment = row.segment + (e / row.low) % row.kept + (e / row.high) % row.outer * row.kept;
        assert!((segment as usize) < plan.segment_count());
    }
}

/// seams.wgsl.
fn check_seam(row: &SeamRow, dispatch: &Dispatch, plan: &Plan) {
    assert_word(row.word, window_of(dispatch, row.slot), "a seam");
    for segment in [row.low, row.high] {
        assert!(segment == NONE || (segment as usize) < plan.segment_count());
    }
}

/// shared/combine.wgsl over so many items, to so many sums and sums of segments.
fn check_combine(combine: &Combine, items: usize, sums: usize, segments: usize) {
    assert!(combine.serial as usize <= combine.runs.len());
    // What `tensor_of` searches.
    assert!(combine.members.is_sorted_by_key(|member| member.first));
    assert!(combine.members.first().is_none_or(|member| member.first as usize <= items));
    for run in &combine.runs {
        let more = run.lanes.max(1) as usize - 1;
        for (place, places) in [(run.target, sums), (run.segment, segments)] {
            assert!(place == NONE || place as usize + more < places, "{run:?} of {places} sums");
        }
        let (before, count) = (run.before * run.stride, (run.count + run.after) as usize);
        assert!(before <= run.first, "{run:?}");
        if count > 0 {
            let last = run.first as usize + more + (count - 1) * run.stride as usize;
            assert!(last < items, "{run:?} of {items} items");
        }
    }
}

fn rows_of<'a, R>(table: &'a [R], dispatch: &Dispatch) -> &'a [R] {
    &table[dispatch.rows.start as usize..dispatch.rows.end as usize]
}

fn check(plan: &Plan, workgroup_size: u32) {
    for (dispatch, applied) in
        plan.dispatches.iter().map(|d| (d, true)).chain(plan.measured.iter().map(|d| (d, false)))
    {
        assert!(dispatch.rows.start <= dispatch.short.start && dispatch.short.end == dispatch.rows.end);
        for row in rows_of(&plan.rows, dispatch) {
            check_words(row, dispatch);
            check_blocks(row, dispatch, dispatch.vectors);
            check_blocks(row, dispatch, false);
            if dispatch.vectors {
                check_vectors(row, dispatch);
            }
            assert!(row.partial < plan.partials);
            assert!(!applied || (row.segment as usize) < plan.segment_count());
        }
    }
    for dispatch in &plan.units {
        rows_of(&plan.unit_rows, dispatch)
            .iter()
            .for_each(|row| check_unit_row(row, dispatch, plan, workgroup_size));
    }
    for dispatch in &plan.mapped {
        rows_of(&plan.map_rows, dispatch).iter().for_each(|row| check_map_row(row, dispatch, plan));
    }
    for dispatch in plan.dispatches.iter().chain(&plan.mapped) {
        let seams = &plan.seams[dispatch.seams.start as usize..dispatch.seams.end as usize];
        seams.iter().for_each(|row| check_seam(row, dispatch, plan));
    }
    let (partials, tensors) = (plan.partials as usize, plan.tensor_sum_count());
    let segments = plan.segment_sum_count();
    match &plan.blocks {
        None => check_combine(&plan.tensors, partials, tensors, segments),
        Some(blocks) => {
            let sums = plan.tensors.runs.iter().map(|run| run.count as usize).sum();
            check_combine(blocks, partials, sums, segments);
            check_combine(&plan.tensors, sums, tensors, segments);
        }
    }
    check_combine(&plan.segments, tensors, segments, 0);
}

/// In every scope, and by the ratio to parameters.
fn clips() -> [Clip; 7] {
    let clip = Clip::global_norm(1.0);
    [
        clip,
        clip.scope(Scope::Tensor),
        clip.scope(Scope::Unit(Units::OutputFirst)),
        clip.scope(Scope::Unit(Units::OutputLast)),
        clip.scope(Scope::Row),
        Clip::agc(0.01, Units::OutputFirst),
        Clip::agc(0.01, Units::OutputLast),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(budget::INDEX_CASES))]

    #[test]
    fn every_index_is_in_range(
        asked in prop::collection::vec(
            (0usize..3, (prop_oneof![1u64..5, 1u64..300], prop_oneof![1u64..9, 1u64..2000, 1024u64..1025]), 0u64..9, 0usize..3),
            1..9),
        rows in 1u64..50,
        clip in 0usize..7,
        slots in 1u32..9,
        max_binding in (1u64 << 20)..(1 << 22),
        alignment in prop::sample::select(vec![4u64, 32, 256]),
        short_from in 0u64..20,
        long_unit in prop::sample::select(vec![256u64, 16_384]),
        workgroup_size in prop::sample::select(vec![32u32, 128, 256]),
        vectors in any::<bool>(),
        block in prop::sample::select(vec![1u32, 2, 5, 4096]),
    ) {
        let limits = PlanLimits { slots, bindings: slots, long_unit, short_from, vectors, teams: vectors, block,
            max_binding: max_binding & !3, alignment, workgroup_size, storage: 16, ..limits() };
        let clip = clips()[clip];
        let dtypes = [DType::F32, DType::F16, DType::Bf16];
        let mut ends = [0u64; 4];
        let mut place = |buffer: usize, gap: u64, elements: u64, dtype: DType| {
            let offset = (ends[buffer] + gap * 2).next_multiple_of(dtype.size());
            ends[buffer] = offset + elements * dtype.size();
            offset
        };
        let mut tensors: Vec<Placement> = Vec::new();
        for (i, &(buffer, (first, second), gap, dtype)) in asked.iter().enumerate() {
            let shape: Box<[u64]> = match clip.scope {
                Scope::Row => [rows, second].into(),
                _ => [first, second].into(),
            };
            let (elements, dtype) = (shape.iter().product(), dtypes[dtype]);
            let at = |buffer, offset, dtype| Placement {
                name: format!("t{i}"), buffer, offset, elements, dtype, shape: Some(shape.clone()),
                ..Placement::default()
            };
            let gradient = at(buffer, place(buffer, gap, elements, dtype), dtype);
            let parameter = at(3, place(3, gap, elements, DType::F32), DType::F32);
            tensors.push(Placement { parameter: Some(Box::new(parameter)), ..gradient });
        }
        // No word behind the last element: windows end where buffers do.
        for t in &mut tensors {
            t.buffer_size = ends[t.buffer].next_multiple_of(4);
            t.parameter.as_mut().unwrap().buffer_size = ends[3].next_multiple_of(4);
        }
        match Plan::new(&tensors, &clip, &limits) {
            Ok(plan) => check(&plan, workgroup_size),
            // Units far apart, in windows this small.
            Err(PrepareError::Plan(PlanError::TooLarge { .. })) => {}
            Err(other) => panic!("{other}"),
        }
    }
}
