// Four elements with their operands, all in flight before the first is used; little code a slot.

struct One {
    word: u32,
    own: Own,
}

struct Four {
    a: One,
    b: One,
    c: One,
    d: One,
}

//@each slot
fn one_SLOT(row: FusedRow, i: u32) -> One {
    return One(OPERAND0[word_of(row.start + i)], own_SLOT(row, i));
}
//@end

fn four_of(row: FusedRow, k: vec4<u32>) -> Four {
    var four: Four;
    switch row.slot_len >> LEN_BITS {
        //@each slot
        case SLOTu: {
            four = Four(one_SLOT(row, k.x), one_SLOT(row, k.y), one_SLOT(row, k.z), one_SLOT(row, k.w));
        }
        //@end
        default: {}
    }
    return four;
}
