// Element by element, as software adapters do it fastest.

fn fused_chunk(row: FusedRow, tensor: FusedTensor, lane: u32) {
    let whole = tensor.kept * tensor.outer == 1u;
    var outcome = outcomes[row.segment];
    let len = row.slot_len & ((1u << LEN_BITS) - 1u);
    switch row.slot_len >> LEN_BITS {
        //@each slot
        case SLOTu: {
            for (var i = lane; i < len; i += WORKGROUP) {
                if !whole {
                    outcome = outcomes[segment_of(row, tensor, i)];
                }
                if passes_over(outcome) {
                    continue;
                }
                let e = row.start + i;
                let gradient = applied(element_bits(OPERAND0[word_of(e)], e), outcome);
                put_SLOT(row, i, stepped(own_SLOT(row, i), tensor, gradient, outcome));
            }
        }
        //@end
        default: {}
    }
}
