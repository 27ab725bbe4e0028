// An outcome to every WORKGROUP-th word from `first` to before `end`.

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
            let field = field_in(bits);
            if field != 0u && is_plain(field + field_of_scale) {
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

fn apply_run_SLOT(first: u32, end: u32, outcome: Outcome) {
    if multiplies(outcome) {
        multiply_SLOT(first, end, outcome.scale);
        return;
    }
    for (var i = first; i < end; i += WORKGROUP) {
        slot_SLOT[i] = applied_word(slot_SLOT[i], outcome);
    }
}
//@end
