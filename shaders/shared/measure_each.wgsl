// What is measured, element by element, as software adapters do it fastest.

fn update_at(i: u32) -> u32 {
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

fn parameter_at(i: u32) -> u32 {
    switch chunk.slot_len >> LEN_BITS {
        //@each slot
        case SLOTu: {
            return parameter_SLOT(chunk, i) & 0x7fffffffu;
        }
        //@end
        default: {
            return 0u;
        }
    }
}

// One row of a column in its place among four.
fn with_row(c: Column, r: u32, bits: u32) -> Column {
    let at = vec4(r & 3u) == vec4(0u, 1u, 2u, 3u);
    let q = r >> 2u;
    return Column(
        select(c.a, vec4(bits), at & vec4(q == 0u)),
        select(c.b, vec4(bits), at & vec4(q == 1u)),
        select(c.c, vec4(bits), at & vec4(q == 2u)),
        select(c.d, vec4(bits), at & vec4(q == 3u))
    );
}

fn updates_at(column: u32, last: u32) -> Column {
    var c = Column(vec4(0u), vec4(0u), vec4(0u), vec4(0u));
    for (var i = column; i <= last; i += COLUMNS) {
        c = with_row(c, i / COLUMNS, update_at(i));
    }
    return c;
}

fn parameters_at(column: u32, last: u32) -> Column {
    var c = Column(vec4(0u), vec4(0u), vec4(0u), vec4(0u));
    for (var i = column; i <= last; i += COLUMNS) {
        c = with_row(c, i / COLUMNS, parameter_at(i));
    }
    return c;
}
