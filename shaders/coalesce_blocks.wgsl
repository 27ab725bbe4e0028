// How often each row occurs -> how many rows of each block do, and with how many entries. A workgroup a block.

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<uniform> sizes: Coalescing;
@group(0) @binding(2) var<storage, read> table: array<u32>;
@group(0) @binding(3) var<storage, read_write> blocks: array<vec2<u32>>;

var<workgroup> shared_sums: array<atomic<u32>, 2>;

@compute @workgroup_size(WORKGROUP)
fn sum_blocks(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let block = index_in_grid(group, groups);
    if lane < 2u {
        atomicStore(&shared_sums[lane], 0u);
    }
    workgroupBarrier();
    let first = block * WORKGROUP * TABLE_ROWS;
    let end = min(first + WORKGROUP * TABLE_ROWS, sizes.rows);
    var sums = vec2(0u);
    for (var row = first + lane; row < end; row += WORKGROUP) {
        let entries = table[1u + row];
        sums += vec2(u32(entries > 0u), entries);
    }
    atomicAdd(&shared_sums[0], sums.x);
    atomicAdd(&shared_sums[1], sums.y);
    workgroupBarrier();
    if lane == 0u && block < job.rows {
        blocks[block] = vec2(atomicLoad(&shared_sums[0]), atomicLoad(&shared_sums[1]));
    }
}
