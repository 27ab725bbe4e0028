// Four elements a turn, all of their operands in flight before the first store.

// Which of four are put back.
fn put(row: FusedRow, tensor: FusedTensor, i: vec4<u32>, four: Four, puts: vec4<bool>) {
    switch row.slot_len >> LEN_BITS {
        //@each slot
        case SLOTu: {
            if puts.x {
                put_SLOT(row, i.x, four.a.own);
            }
            if puts.y {
                put_SLOT(row, i.y, four.b.own);
            }
            if puts.z {
                put_SLOT(row, i.z, four.c.own);
            }
            if puts.w {
                put_SLOT(row, i.w, four.d.own);
            }
            put_words_SLOT(row, tensor, i, four, puts);
        }
        //@end
        default: {}
    }
}

fn next_of(one: One, row: FusedRow, tensor: FusedTensor, i: u32, outcome: Outcome) -> One {
    let gradient = applied(element_bits(one.word, row.start + i), outcome);
    return One(one.word, stepped(one.own, tensor, gradient, outcome));
}

fn fused_chunk(row: FusedRow, tensor: FusedTensor, lane: u32) {
    let len = row.slot_len & ((1u << LEN_BITS) - 1u);
    for (var first = first_of_turns(lane); first < len; first += 4u * WORKGROUP) {
        let i = elements_of_turn(first);
        let inside = select(vec4(first), i, i < vec4(len));
        // Past the end of the chunk the first element again, which is not put back: no other invocation's, which writes it.
        let four = four_of(row, inside);
        let a = outcome_of(row, tensor, inside.x);
        let b = outcome_of(row, tensor, inside.y);
        let c = outcome_of(row, tensor, inside.z);
        let d = outcome_of(row, tensor, inside.w);
        let next = Four(
            next_of(four.a, row, tensor, inside.x, a),
            next_of(four.b, row, tensor, inside.y, b),
            next_of(four.c, row, tensor, inside.z, c),
            next_of(four.d, row, tensor, inside.w, d)
        );
        let stay = vec4(passes_over(a), passes_over(b), passes_over(c), passes_over(d));
        put(row, tensor, i, next, (i < vec4(len)) & !stay);
    }
}
