// What is measured, four elements of a column at a time.

fn measured_four(first: u32, last: u32) -> vec4<u32> {
    let i = vec4(first) + vec4(0u, 1u, 2u, 3u) * COLUMNS;
    // Past the end of the chunk its last element, which then counts for nothing.
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

fn fetch_single(slot: u32, start: u32, column: u32, last: u32) -> u32 {
    return measured_four(column, last).x;
}

fn fetch(slot: u32, start: u32, column: u32, last: u32) -> Column {
    var c = Column(measured_four(column, last), vec4(0u), vec4(0u), vec4(0u));
    if last >= 4u * COLUMNS {
        c.b = measured_four(column + 4u * COLUMNS, last);
    }
    if last >= 8u * COLUMNS {
        c.c = measured_four(column + 8u * COLUMNS, last);
    }
    if last >= 12u * COLUMNS {
        c.d = measured_four(column + 12u * COLUMNS, last);
    }
    return c;
}
