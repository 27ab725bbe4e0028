// A workgroup a block, an invocation some columns. `take` says what becomes of a part of a list.

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<uniform> sizes: Coalescing;
@group(0) @binding(2) var<storage, read> list: array<u32>;
@group(0) @binding(3) var<storage, read> starts: array<u32>;
@group(0) @binding(4) var<storage, read> entries: array<u32>;
@group(0) @binding(5) var<storage, read_write> long: array<LongSum>;

fn take_part(row: u32, begin: u32, end: u32, lane: u32) {
    if !is_long(row) {
        return;
    }
    let first = max(begin, starts[row]);
    let last = min(end, starts[row + 1u]);
    for (var column = lane; column < sizes.width; column += WORKGROUP) {
        take(sums_of(row) + column, first, last, column);
    }
}

@compute @workgroup_size(WORKGROUP)
fn take_block(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let begin = index_in_grid(group, groups) * LONG_LIST;
    let all = starts[list[0]];
    if begin >= all {
        return;
    }
    let end = min(begin + LONG_LIST, all);
    let first = row_at(begin);
    let last = row_at(end - 1u);
    take_part(first, begin, end, lane);
    if last != first {
        take_part(last, begin, end, lane);
    }
}
