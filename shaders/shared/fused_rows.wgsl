// Element by element of the rows that a list names, each with what belongs to that row of the table. A dispatch binds a part of the
// table, and passes over rows beyond it.

// How many rows there are, how many entries were left out, then the rows.
@group(0) @binding(6) var<storage, read> list: array<u32>;
@group(0) @binding(7) var<uniform> part: TablePart;

fn fused_chunk(row: FusedRow, tensor: FusedTensor, lane: u32) {
    let len = row.slot_len & ((1u << LEN_BITS) - 1u);
    switch row.slot_len >> LEN_BITS {
        //@each slot
        case SLOTu: {
            for (var i = lane; i < len; i += WORKGROUP) {
                let e = row.first + i;
                let k = e / part.width;
                if k >= list[0] {
                    break; // zeros
                }
                let own = list[LIST_HEADER + k] * part.width + (e - k * part.width) - part.first;
                if own >= part.len {
                    continue;
                }
                let outcome = outcome_of(row, tensor, i);
                if passes_over(outcome) {
                    continue;
                }
                let at = row.start + i;
                let gradient = applied(element_bits(OPERAND0[word_of(at)], at), outcome);
                put_SLOT(row, own, stepped(own_SLOT(row, own), tensor, gradient, outcome));
            }
        }
        //@end
        default: {}
    }
}
