//! A plan against its definition: every element in exactly one chunk, every chunk inside its window, windows within the limits, every sum written
//! once.

// A check panics where something is missing, as its assertions do.
#![allow(clippy::unwrap_used)]

use std::ops::Range;

use gradclip::layout::{CHUNK, COLUMNS, ChunkRow, LEN_BITS, NONE, Run, STAGE_SEGMENTS, STAGE_TENSORS};
use gradclip::plan::{Placement, Plan, PlanLimits};

/// Checks it.
///
/// # Panics
///
/// Where it is not what was asked for.
pub fn check(plan: &Plan, tensors: &[Placement], limits: &PlanLimits) {
    let mut chunks: Vec<(usize, u64, u64, u32, u32)> = Vec::new();
    let mut next_row = 0;
    for dispatch in &plan.dispatches {
        assert!(!dispatch.windows.is_empty() && dispatch.windows.len() <= limits.slots as usize);
        assert_eq!(dispatch.rows.start, next_row);
        next_row = dispatch.rows.end;
        assert!(dispatch.grid.iter().all(|&g| (1..=limits.max_workgroups).contains(&g)));
        assert!(u64::from(dispatch.grid[0]) * u64::from(dispatch.grid[1]) >= dispatch.rows.len() as u64);
        let long = dispatch.rows.len() - dispatch.short.len();
        let rows = &plan.rows[dispatch.rows.start as usize..dispatch.rows.end as usize];
        let short = |row: &ChunkRow| row.slot_len & ((1 << LEN_BITS) - 1) <= COLUMNS;
        assert_eq!(dispatch.short.end, dispatch.rows.end);
        if !dispatch.short.is_empty() {
            assert!(dispatch.short.len() as u64 >= limits.short_from);
            assert!(!rows[..long].iter().any(short) && rows[long..].iter().all(short));
        }
        for (i, w) in dispatch.windows.iter().enumerate() {
            assert_eq!(w.offset % limits.alignment, 0);
            assert!(w.size % 4 == 0 && w.size > 0 && w.size <= limits.max_binding);
            let size = tensors.iter().find(|t| t.buffer == w.buffer).unwrap().buffer_size;
            assert!(w.offset + w.size <= size, "window past the end of its buffer");
            for v in &dispatch.windows[..i] {
                let apart = v.offset + v.size <= w.offset || w.offset + w.size <= v.offset;
                assert!(v.buffer != w.buffer || apart, "windows of one dispatch overlap");
            }
        }
        for row in &plan.rows[dispatch.rows.start as usize..dispatch.rows.end as usize] {
            let w = dispatch.windows[(row.slot_len >> LEN_BITS) as usize];
            let len = u64::from(row.slot_len & ((1 << LEN_BITS) - 1));
            let size = dispatch.dtype.size();
            let begin = w.offset + u64::from(row.start) * size;
            assert!(len > 0 && begin + len * size <= w.offset + w.size, "chunk outside its window");
            let whole = begin.is_multiple_of(16) && (len * size).is_multiple_of(16);
            assert_eq!(dispatch.vectors, limits.vectors && whole, "chunk at {begin} of {len}");
            assert!(!dispatch.vectors || (w.offset % 16, w.size % 16) == (0, 0), "vectors outside a window");
            chunks.push((w.buffer, begin, len, row.partial, row.segment));
        }
    }
    assert_eq!(next_row as usize, plan.rows.len());

    // The definition: partial by partial, in the order of tensors and of chunks in each.
    chunks.sort_by_key(|c| c.3);
    let mut expected = Vec::new();
    for (i, t) in tensors.iter().enumerate() {
        let first = expected.len() as u32;
        for k in 0..t.elements.div_ceil(u64::from(CHUNK)) {
            let begin = t.offset + k * u64::from(CHUNK) * t.dtype.size();
            let len = (t.elements - k * u64::from(CHUNK)).min(u64::from(CHUNK));
            expected.push((t.buffer, begin, len, expected.len() as u32, plan.segment_of[i]));
        }
        let run = plan.tensors.runs.iter().find(|r| r.target == i as u32).unwrap();
        let count = expected.len() as u32 - first;
        match &plan.blocks {
            None => assert_eq!((run.first, run.count), (first, count)),
            Some(blocks) => {
                check_blocks(&blocks.runs, run.first..run.first + run.count, first..first + count)
            }
        }
    }
    assert_eq!(chunks, expected);
    check_finish(plan);
    // A segment of one tensor is written with the tensor.
    let first = plan.blocks.as_ref().unwrap_or(&plan.tensors);
    let copied = first.runs.iter().filter(|r| r.segment != NONE).count();
    assert_eq!(plan.segments.runs.iter().map(|r| r.count as usize).sum::<usize>() + copied, tensors.len());
}

/// What one workgroup finishes: it reads only what there is, every sum is written once, every segment decided once.
///
/// # Panics
///
/// Where that is not so.
pub fn check_finish(plan: &Plan) {
    let Some(finish) = &plan.finish else { return };
    let counts = [finish.runs, finish.segment_runs, finish.members, finish.decided].map(|n| n as usize);
    let only = usize::from(finish.reduces);
    assert_eq!(finish.table.len(), counts.iter().sum::<usize>() + only);
    let (runs, rest) = finish.table.split_at(counts[0]);
    let (sums, rest) = rest.split_at(counts[1]);
    let (decided, only) = rest[counts[2]..].split_at(counts[3]);
    for run in only {
        assert_eq!(plan.rows.len(), 1);
        let ChunkRow { start, slot_len, partial, segment } = plan.rows[0];
        assert_eq!([run.first, run.count, run.target, run.segment], [start, slot_len, partial, segment]);
        let dispatches: Vec<_> = plan.dispatches.iter().chain(&plan.measured).collect();
        assert_eq!((plan.partials, dispatches.len(), dispatches[0].windows.len()), (1, 1, 1));
    }
    let last = |run: &Run| run.first + run.count.saturating_sub(1) * run.stride;
    assert!(runs.iter().all(|r| r.lanes == 1 && (r.count == 0 || last(r) < plan.partials)));
    let tensors = plan.tensor_sum_count();
    assert!(sums.iter().all(|r| r.lanes == 1 && (r.count == 0 || (last(r) as usize) < tensors)));
    let sorted = |places: Vec<u32>| {
        let mut places: Vec<u32> = places.into_iter().filter(|&place| place != NONE).collect();
        places.sort_unstable();
        places
    };
    let (does_tensors, does_segments) = (finish.does(STAGE_TENSORS), finish.does(STAGE_SEGMENTS));
    // What it leaves to dispatches of their own, these write.
    let first = plan.blocks.as_ref().unwrap_or(&plan.tensors);
    let of_partials = if does_tensors { runs } else { &first.runs };
    let written = sorted(of_partials.iter().map(|r| r.target).collect());
    let wanted = if does_tensors || plan.blocks.is_none() { tensors } else { first.runs.len() };
    assert_eq!(written, (0..wanted as u32).collect::<Vec<_>>());
    let of_units = |r: &Run| {
        (0..r.lanes).map(|lane| if r.segment == NONE { NONE } else { r.segment + lane }).collect::<Vec<_>>()
    };
    let mut segments: Vec<u32> = of_partials.iter().flat_map(of_units).collect();
    segments.extend(match does_segments {
        true => sums.iter().map(|r| r.segment).collect::<Vec<_>>(),
        false => plan.segments.runs.iter().map(|r| r.target).collect(),
    });
    assert_eq!(sorted(segments), (0..plan.segment_sum_count() as u32).collect::<Vec<_>>());
    let each: Vec<u32> = decided.iter().map(|r| r.first).collect();
    assert_eq!(sorted(each), (0..plan.segment_count() as u32).collect::<Vec<_>>());
    assert!(decided.iter().all(|r| r.count == 1));
}

/// Blocks add up each of the tensor's partials once, aligned to the exponents of all.
fn check_blocks(runs: &[Run], blocks: Range<u32>, partials: Range<u32>) {
    let mut next = partials.start;
    for target in blocks {
        let block = runs.iter().find(|r| r.target == target).unwrap();
        assert_eq!(block.first, next);
        assert_eq!(block.first - block.before, partials.start);
        assert_eq!(block.first + block.count + block.after, partials.end);
        assert_eq!((block.stride, block.lanes), (1, 1));
        next += block.count;
    }
    assert_eq!(next, partials.end);
}
