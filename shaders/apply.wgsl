// outcome -> gradients, in place. One workgroup a chunk; where the outcome is KEEP it returns
// before touching the gradients.

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<storage, read> rows: array<ChunkRow>;
@group(0) @binding(2) var<storage, read> outcomes: array<Outcome>;
//@each slot
@group(1) @binding(SLOT) var<storage, read_write> slot_SLOT: array<u32>;
//@end

// Whether words are f32 and the factor a normal one.
fn multiplies(outcome: Outcome) -> bool {
    return PER_WORD == 1u && outcome.action == MULTIPLY && outcome.rescale == ONE_BITS && outcome.scale >= 0x800000u;
}

// The common case, without code that few elements need: those wait for the end of 32 turns. Software adapters
// run both sides of a branch, but no loop that nobody enters.
//@each slot
fn multiply_SLOT(first: u32, end: u32, scale: u32) {
    let field_of_scale = scale >> 23u;
    for (var begin = first; begin < end; begin += 32u * WORKGROUP) {
        let turns = min(32u, (end - begin + WORKGROUP - 1u) / WORKGROUP);
        var waiting = 0u;
        for (var k = 0u; k < turns; k++) {
            let i = begin + k * WORKGROUP;
            let bits = slot_SLOT[i];
            let field = (bits >> 23u) & 0xffu;
            if field != 0u && field + field_of_scale >= 129u {
                slot_SLOT[i] = bitcast<u32>(bitcast<f32>(bits) * bitcast<f32>(scale));
            } else {
                waiting |= 1u << k;
            }
        }
        while waiting != 0u {
            let i = begin + firstTrailingBit(waiting) * WORKGROUP;
            slot_SLOT[i] = product_by_integers(slot_SLOT[i], scale, ONE_BITS);
            waiting &= waiting - 1u;
        }
    }
}
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
            if multiplies(outcome) {
                multiply_SLOT(first_word + lane, end_word, outcome.scale);
            } else {
                for (var i = first_word + lane; i < end_word; i += WORKGROUP) {
                    slot_SLOT[i] = applied_word(slot_SLOT[i], outcome);
                }
            }
        }
        //@end
        default: {}
    }
}
