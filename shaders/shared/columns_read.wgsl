// A column of a chunk of gradients, row by row.

// Rows 4 to 15 are fetched only where the chunk has them. Whole chunks have no way of their own here: software adapters, for which
// this form is, would run both.
fn fetch(slot: u32, start: u32, column: u32, last: u32) -> Column {
    var c = Column(vec4(0u), vec4(0u), vec4(0u), vec4(0u));
    switch slot {
        //@each slot
        case SLOTu: {
            c.a = four_rows_SLOT(start, column, last);
            if last >= 4u * COLUMNS {
                c.b = four_rows_SLOT(start, column + 4u * COLUMNS, last);
            }
            if last >= 8u * COLUMNS {
                c.c = four_rows_SLOT(start, column + 8u * COLUMNS, last);
            }
            if last >= 12u * COLUMNS {
                c.d = four_rows_SLOT(start, column + 12u * COLUMNS, last);
            }
        }
        //@end
        default: {}
    }
    return c;
}

//@each slot
fn four_rows_SLOT(start: u32, i: u32, last: u32) -> vec4<u32> {
    return vec4(
        at_SLOT(start, i, last),
        at_SLOT(start, i + COLUMNS, last),
        at_SLOT(start, i + 2u * COLUMNS, last),
        at_SLOT(start, i + 3u * COLUMNS, last)
    );
}
//@end
