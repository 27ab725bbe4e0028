// What is measured, four elements of a column at a time.

// Past the end of the chunk its last element, which then counts for nothing.
fn four_updates(first: u32, last: u32) -> vec4<u32> {
    let i = vec4(first) + vec4(0u, 1u, 2u, 3u) * COLUMNS;
    let k = min(i, vec4(last));
    let four = four_of(chunk, k);
    let m = vec4(
        measured(four.a.own, four.a.word, k.x),
        measured(four.b.own, four.b.word, k.y),
        measured(four.c.own, four.c.word, k.z),
        measured(four.d.own, four.d.word, k.w)
    );
    return select(vec4(0u), m, i <= vec4(last));
}

fn four_parameters(first: u32, last: u32) -> vec4<u32> {
    let i = vec4(first) + vec4(0u, 1u, 2u, 3u) * COLUMNS;
    let k = min(i, vec4(last));
    var bits = vec4(0u);
    switch chunk.slot_len >> LEN_BITS {
        //@each slot
        case SLOTu: {
            bits = vec4(
                parameter_SLOT(chunk, k.x), parameter_SLOT(chunk, k.y), parameter_SLOT(chunk, k.z), parameter_SLOT(chunk, k.w)
            );
        }
        //@end
        default: {}
    }
    return select(vec4(0u), bits & vec4(0x7fffffffu), i <= vec4(last));
}

fn updates_at(column: u32, last: u32) -> Column {
    var c = Column(vec4(0u), vec4(0u), vec4(0u), vec4(0u));
    for (var i = column; i <= last; i += 4u * COLUMNS) {
        c = with_rows(c, i / (4u * COLUMNS), four_updates(i, last));
    }
    return c;
}

fn parameters_at(column: u32, last: u32) -> Column {
    var c = Column(vec4(0u), vec4(0u), vec4(0u), vec4(0u));
    for (var i = column; i <= last; i += 4u * COLUMNS) {
        c = with_rows(c, i / (4u * COLUMNS), four_parameters(i, last));
    }
    return c;
}
