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

// Which unit an element belongs to, by two digits, each with the elements since it last changed.
struct Place {
    low_rest: u32,
    low: u32,
    high_rest: u32,
    high: u32,
}

fn place_of(row: MapRow, e: u32) -> Place {
    return Place(e % row.low, (e / row.low) % row.kept, e % row.high, (e / row.high) % row.outer);
}

// As place_of the sum of both elements, without a division.
fn moved(row: MapRow, place: Place, by: Place) -> Place {
    let low_rest = place.low_rest + by.low_rest;
    let high_rest = place.high_rest + by.high_rest;
    let low = place.low + by.low + u32(low_rest >= row.low);
    let high = place.high + by.high + u32(high_rest >= row.high);
    return Place(
        select(low_rest, low_rest - row.low, low_rest >= row.low),
        select(low, low - row.kept, low >= row.kept),
        select(high_rest, high_rest - row.high, high_rest >= row.high),
        select(high, high - row.outer, high >= row.outer)
    );
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

// Short or scattered units, element by element; as in shared/run.wgsl, what is not a plain product of normal f32 waits.
fn apply_each_SLOT(row: MapRow, first: u32, end: u32) {
    var place = place_of(row, row.first + (first - row.start));
    let by = place_of(row, WORKGROUP);
    for (var begin = first; begin < end; begin += 32u * WORKGROUP) {
        let turns = min(32u, (end - begin + WORKGROUP - 1u) / WORKGROUP);
        var waiting = 0u;
        for (var k = 0u; k < turns; k++) {
            let i = begin + k * WORKGROUP;
            let segment = row.segment + place.low + place.high * row.kept;
            place = moved(row, place, by);
            let bits = slot_SLOT[i];
            let scale = outcomes[segment].scale;
            let field = (bits >> 23u) & 0xffu;
            if multiplies(outcomes[segment]) && field != 0u && is_plain(field + (scale >> 23u)) {
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

// Units that are as long as a workgroup is wide: each has one outcome.
fn apply_long_SLOT(row: MapRow, lane: u32, end: u32) {
    var e = row.first;
    var i = row.start;
    while i < end {
        let until = i + min(row.low - e % row.low, end - i);
        let outcome = outcomes[row.segment + (e / row.low) % row.kept];
        if outcome.action != KEEP {
            apply_run_SLOT(i + lane, until, outcome);
        }
        e += until - i;
        i = until;
    }
}
//@end

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
            if PER_WORD == 1u && row.outer == 1u && row.low >= WORKGROUP {
                apply_long_SLOT(row, lane, end);
            } else if PER_WORD == 1u {
                apply_each_SLOT(row, first_word + lane, end_word);
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
