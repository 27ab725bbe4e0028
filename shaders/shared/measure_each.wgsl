// What is measured, element by element, as software adapters do it fastest.

fn measured_at(i: u32) -> vec2<u32> {
    switch chunk.slot_len >> LEN_BITS {
        //@each slot
        case SLOTu: {
            return measured(own_SLOT(chunk, i), OPERAND0[word_of(chunk.start + i)], i);
        }
        //@end
        default: {
            return vec2(0u);
        }
    }
}

fn columns_at(column: u32, last: u32) -> Columns {
    var m: array<vec2<u32>, ROWS>;
    for (var i = column; i <= last; i += COLUMNS) {
        m[i / COLUMNS] = measured_at(i);
    }
    return Columns(
        Column(
            vec4(m[0].x, m[1].x, m[2].x, m[3].x),
            vec4(m[4].x, m[5].x, m[6].x, m[7].x),
            vec4(m[8].x, m[9].x, m[10].x, m[11].x),
            vec4(m[12].x, m[13].x, m[14].x, m[15].x)
        ),
        Column(
            vec4(m[0].y, m[1].y, m[2].y, m[3].y),
            vec4(m[4].y, m[5].y, m[6].y, m[7].y),
            vec4(m[8].y, m[9].y, m[10].y, m[11].y),
            vec4(m[12].y, m[13].y, m[14].y, m[15].y)
        )
    );
}
