// The words of a run, one an invocation and turn.

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
            let field = field_in(bits);
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

fn apply_row(row: MapRow, lane: u32) {
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
