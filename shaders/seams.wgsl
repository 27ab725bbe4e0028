// outcome -> the words of 16-bit gradients that the apply kernel leaves out: those shared by two
// chunks, or with something that is no gradient. One invocation a word, so that no half is lost.

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<storage, read> rows: array<SeamRow>;
@group(0) @binding(2) var<storage, read> outcomes: array<Outcome>;
//@each slot
@group(1) @binding(SLOT) var<storage, read_write> slot_SLOT: array<u32>;
//@end

fn seam_half(half: u32, segment: u32) -> u32 {
    if segment == NONE {
        return half;
    }
    return applied_half(half, outcomes[segment]);
}

fn sewn(word: u32, row: SeamRow) -> u32 {
    return seam_half(word & 0xffffu, row.low) | (seam_half(word >> 16u, row.high) << 16u);
}

@compute @workgroup_size(WORKGROUP)
fn seams(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = index_in_grid(group, groups) * WORKGROUP + lane;
    if index >= job.rows {
        return;
    }
    let row = rows[job.first_row + index];
    switch row.slot {
        //@each slot
        case SLOTu: {
            slot_SLOT[row.word] = sewn(slot_SLOT[row.word], row);
        }
        //@end
        default: {}
    }
}
