// How often each row occurs, sums of blocks -> the rows that do, ascending, and where the list of each one's entries begins, which
// is also written in place of how often it occurs. A workgroup a block.

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<uniform> sizes: Coalescing;
@group(0) @binding(2) var<storage, read> blocks: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read_write> table: array<u32>;
@group(0) @binding(4) var<storage, read_write> list: array<u32>;
// One more than there are rows: the end of the last list.
@group(0) @binding(5) var<storage, read_write> starts: array<u32>;

var<workgroup> shared_before: array<atomic<u32>, 2>;
var<workgroup> shared_sums: array<vec2<u32>, WORKGROUP>;

// The sum over all blocks before this one.
fn sum_before(block: u32, lane: u32) -> vec2<u32> {
    if lane < 2u {
        atomicStore(&shared_before[lane], 0u);
    }
    workgroupBarrier();
    var sums = vec2(0u);
    for (var i = lane; i < block; i += WORKGROUP) {
        sums += blocks[i];
    }
    atomicAdd(&shared_before[0], sums.x);
    atomicAdd(&shared_before[1], sums.y);
    workgroupBarrier();
    return vec2(atomicLoad(&shared_before[0]), atomicLoad(&shared_before[1]));
}

// The sum up to this invocation's own (Hillis and Steele 1986).
fn sum_up_to(own: vec2<u32>, lane: u32) -> vec2<u32> {
    shared_sums[lane] = own;
    for (var step = 1u; step < WORKGROUP; step <<= 1u) {
        workgroupBarrier();
        var before = vec2(0u);
        if lane >= step {
            before = shared_sums[lane - step];
        }
        workgroupBarrier();
        shared_sums[lane] += before;
    }
    return shared_sums[lane];
}

@compute @workgroup_size(WORKGROUP)
fn number_rows(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let block = min(index_in_grid(group, groups), job.rows);
    let first = (block * WORKGROUP + lane) * TABLE_ROWS;
    let end = min(first + TABLE_ROWS, sizes.rows);
    var own = vec2(0u);
    for (var row = first; row < end; row++) {
        let entries = table[1u + row];
        own += vec2(u32(entries > 0u), entries);
    }
    let before = sum_before(block, lane);
    let up_to = before + sum_up_to(own, lane);
    if block >= job.rows {
        return;
    }
    var next = up_to - own;
    for (var row = first; row < end; row++) {
        let entries = table[1u + row];
        if entries > 0u {
            list[LIST_HEADER + next.x] = row;
            starts[next.x] = next.y;
            table[1u + row] = next.y;
            next += vec2(1u, entries);
        }
    }
    if block + 1u == job.rows && lane + 1u == WORKGROUP {
        list[0] = up_to.x;
        list[1] = table[0];
        starts[up_to.x] = up_to.y;
    }
}
