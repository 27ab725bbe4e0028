// Where the list of each row's entries begins -> these lists, each in any order. An invocation an entry.

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<uniform> sizes: Coalescing;
@group(0) @binding(2) var<storage, read> indices: array<u32>;
@group(0) @binding(3) var<storage, read> count: array<u32>;
// Where the next entry of each row goes.
@group(0) @binding(4) var<storage, read_write> table: array<atomic<u32>>;
@group(0) @binding(5) var<storage, read_write> entries: array<u32>;

@compute @workgroup_size(WORKGROUP)
fn list_entries(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let entry = index_in_grid(group, groups) * WORKGROUP + lane;
    if entry >= min(count[sizes.count], sizes.entries) {
        return;
    }
    let row = indices[sizes.first_index + entry];
    if row < sizes.rows {
        entries[atomicAdd(&table[1u + row], 1u)] = entry;
    }
}
