// What is measured, element by element, as software adapters do it fastest.

fn measured_at(i: u32) -> u32 {
    switch chunk.slot_len >> LEN_BITS {
        //@each slot
        case SLOTu: {
            return measured(own_SLOT(chunk, i), OPERAND0[word_of(chunk.start + i)], i);
        }
        //@end
        default: {
            return 0u;
        }
    }
}

fn fetch_single(slot: u32, start: u32, column: u32, last: u32) -> u32 {
    if column > last {
        return 0u;
    }
    return measured_at(column);
}

fn fetch(slot: u32, start: u32, column: u32, last: u32) -> Column {
    var m: array<u32, ROWS>;
    for (var i = column; i <= last; i += COLUMNS) {
        m[i / COLUMNS] = measured_at(i);
    }
    return Column(
        vec4(m[0], m[1], m[2], m[3]),
        vec4(m[4], m[5], m[6], m[7]),
        vec4(m[8], m[9], m[10], m[11]),
        vec4(m[12], m[13], m[14], m[15])
    );
}
