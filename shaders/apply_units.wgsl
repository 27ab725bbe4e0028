// outcome -> gradients, in place, for tensors that are cut into units. One workgroup a run of
// neighbouring elements, whatever unit each belongs to; where no segment is changed it returns at once.

// A Tally as plain words, since atomics cannot lie in a uniform buffer.
struct TallyWords {
    steps_and_clipped: vec4<u32>,
    skipped: u32,
    changed: u32,
    pad: vec2<u32>,
}

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<storage, read> rows: array<MapRow>;
@group(0) @binding(2) var<storage, read> outcomes: array<Outcome>;
@group(0) @binding(3) var<uniform> tally: TallyWords;
//@each slot
@group(1) @binding(SLOT) var<storage, read_write> slot_SLOT: array<u32>;
//@end

fn segment_of(row: MapRow, i: u32) -> u32 {
    let e = row.first + i;
    let low = row.segment + (e / row.low) % row.kept;
    if row.outer == 1u {
        return low;
    }
    return low + (e / row.high) % row.outer * row.kept;
}

//@each slot
fn apply_word_SLOT(row: MapRow, word: u32) {
    let first = first_of_word(word);
    let low = segment_of(row, first - row.start);
    let high = segment_of(row, first + PER_WORD - 1u - row.start);
    if outcomes[low].action == KEEP && outcomes[high].action == KEEP {
        return;
    }
    slot_SLOT[word] = applied_pair(slot_SLOT[word], outcomes[low], outcomes[high]);
}

// As in apply.wgsl: what is not a plain product of normal f32 waits for the end of 32 turns.
fn multiply_SLOT(row: MapRow, first: u32, end: u32) {
    for (var begin = first; begin < end; begin += 32u * WORKGROUP) {
        let turns = min(32u, (end - begin + WORKGROUP - 1u) / WORKGROUP);
        var waiting = 0u;
        for (var k = 0u; k < turns; k++) {
            let i = begin + k * WORKGROUP;
            let segment = segment_of(row, i - row.start);
            let bits = slot_SLOT[i];
            let scale = outcomes[segment].scale;
            let field = (bits >> 23u) & 0xffu;
            if multiplies(segment) && field != 0u && field + (scale >> 23u) >= 129u {
                slot_SLOT[i] = bitcast<u32>(bitcast<f32>(bits) * bitcast<f32>(scale));
            } else {
                waiting |= select(1u << k, 0u, outcomes[segment].action == KEEP);
            }
        }
        while waiting != 0u {
            apply_word_SLOT(row, begin + firstTrailingBit(waiting) * WORKGROUP);
            waiting &= waiting - 1u;
        }
    }
}
//@end

// Whether the segment's factor is all there is, and a normal one.
fn multiplies(segment: u32) -> bool {
    return outcomes[segment].action == MULTIPLY && outcomes[segment].rescale == ONE_BITS && outcomes[segment].scale >= 0x800000u;
}

@compute @workgroup_size(WORKGROUP)
fn apply_units(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = group.y * groups.x + group.x;
    if index >= job.rows || tally.changed == 0u {
        return;
    }
    let row = rows[job.first_row + index];
    let end = row.start + (row.slot_len & ((1u << LEN_BITS) - 1u));
    let first_word = first_whole_word(row.start);
    let end_word = end_whole_word(end);
    switch row.slot_len >> LEN_BITS {
        //@each slot
        case SLOTu: {
            if PER_WORD == 1u {
                multiply_SLOT(row, first_word + lane, end_word);
            } else {
                for (var i = first_word + lane; i < end_word; i += WORKGROUP) {
                    apply_word_SLOT(row, i);
                }
            }
        }
        //@end
        default: {}
    }
}
