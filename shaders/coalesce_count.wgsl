// Indices of entries -> how often each row of the table occurs. An invocation an entry.

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<uniform> sizes: Coalescing;
@group(0) @binding(2) var<storage, read> indices: array<u32>;
@group(0) @binding(3) var<storage, read> count: array<u32>;
// How many entries are left out, then a word a row.
@group(0) @binding(4) var<storage, read_write> table: array<atomic<u32>>;

@compute @workgroup_size(WORKGROUP)
fn count_entries(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let entry = index_in_grid(group, groups) * WORKGROUP + lane;
    let given = count[sizes.count];
    if entry == 0u && given > sizes.entries {
        atomicAdd(&table[0], given - sizes.entries);
    }
    if entry >= min(given, sizes.entries) {
        return;
    }
    let row = indices[sizes.first_index + entry];
    if row < sizes.rows {
        atomicAdd(&table[1u + row], 1u);
    } else {
        atomicAdd(&table[0], 1u);
    }
}
