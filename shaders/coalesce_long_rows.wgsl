// Sums of long lists -> added rows. A workgroup a block, an invocation some columns.

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<uniform> sizes: Coalescing;
@group(0) @binding(2) var<storage, read> list: array<u32>;
@group(0) @binding(3) var<storage, read> starts: array<u32>;
@group(0) @binding(4) var<storage, read_write> long: array<LongSum>;
// Those from element `job.first_row` on, as bits of f32.
@group(0) @binding(5) var<storage, read_write> added: array<u32>;

fn long_sum(at: u32) -> u32 {
    let values = values_so_far(at);
    if !is_sum_finite(values) {
        return sum_not_finite(values);
    }
    let lo = atomicLoad(&long[at].sum[0]);
    let mid = atomicLoad(&long[at].sum[1]);
    let hi = atomicLoad(&long[at].sum[2]);
    return rounded_sum(U96(lo, mid, hi), field_of_sum(values), values);
}

@compute @workgroup_size(WORKGROUP)
fn write_rows(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let block = index_in_grid(group, groups);
    if block * LONG_LIST >= starts[list[0]] {
        return;
    }
    let row = row_at(block * LONG_LIST);
    let sums = block * sizes.width;
    if !is_long(row) || sums_of(row) != sums {
        return;
    }
    for (var column = lane; column < sizes.width; column += WORKGROUP) {
        let place = row * sizes.width + column - job.first_row;
        if place < job.rows {
            added[place] = long_sum(sums + column);
        }
    }
}
