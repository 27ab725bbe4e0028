// outcome -> gradients, in place. One workgroup a chunk; where the outcome is KEEP it returns
// before touching the gradients.

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<storage, read> rows: array<ChunkRow>;
@group(0) @binding(2) var<storage, read> outcomes: array<Outcome>;
//@each slot
@group(1) @binding(SLOT) var<storage, read_write> slot_SLOT: array<u32>;
//@end

@compute @workgroup_size(WORKGROUP)
fn apply(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = group.y * groups.x + group.x;
    if index >= job.rows {
        return;
    }
    let row = rows[job.first_row + index];
    let outcome = outcomes[row.segment];
    if outcome.action == KEEP {
        return;
    }
    let end = row.start + (row.slot_len & ((1u << LEN_BITS) - 1u));
    // Words that the chunk owns whole; a word shared with a neighbour is left to the seams kernel.
    let first_word = first_whole_word(row.start);
    let end_word = end_whole_word(end);
    switch row.slot_len >> LEN_BITS {
        //@each slot
        case SLOTu: {
            apply_run_SLOT(first_word + lane, end_word, outcome);
        }
        //@end
        default: {}
    }
}
