// Two elements a turn, which share a word of the parameter.

// What an element's parameter becomes, and whether it moves.
struct Half {
    bits: u32,
    moves: bool,
}

//@each slot
fn stepped_SLOT(row: FusedRow, tensor: FusedTensor, i: u32, len: u32) -> Half {
    if i >= len {
        return Half(0u, false);
    }
    let outcome = outcome_of(row, tensor, i);
    if passes_over(outcome) {
        return Half(0u, false);
    }
    let e = row.start + i;
    let gradient = applied(element_bits(OPERAND0[word_of(e)], e), outcome);
    let own = stepped(own_SLOT(row, i), tensor, gradient, outcome);
    put_SLOT(row, i, own);
    return Half(own.parameter, true);
}
//@end

fn fused_chunk(row: FusedRow, tensor: FusedTensor, lane: u32) {
    let len = row.slot_len & ((1u << LEN_BITS) - 1u);
    switch row.slot_len >> LEN_BITS {
        //@each slot
        case SLOTu: {
            for (var i = 2u * lane; i < len; i += 2u * WORKGROUP) {
                let low = stepped_SLOT(row, tensor, i, len);
                let high = stepped_SLOT(row, tensor, i + 1u, len);
                let halves = halves_of(row, tensor, i, low.bits, high.bits);
                put_halves_SLOT(row, i, halves, vec2(low.moves, high.moves));
            }
        }
        //@end
        default: {}
    }
}
