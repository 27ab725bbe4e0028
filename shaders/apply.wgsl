// outcome -> gradients, in place. One workgroup a chunk; where the outcome is KEEP it returns
// before touching the gradients. How it writes, shared/apply_words.wgsl or shared/apply_vectors.wgsl tells.

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<storage, read> rows: array<ChunkRow>;
@group(0) @binding(2) var<storage, read> outcomes: array<Outcome>;

@compute @workgroup_size(WORKGROUP)
fn apply(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = index_in_grid(group, groups);
    if index >= job.rows {
        return;
    }
    let row = rows[job.first_row + index];
    let outcome = outcomes[row.segment];
    if outcome.action == KEEP {
        return;
    }
    apply_chunk(row, outcome, lane);
}
