// What is measured, four elements of a column at a time.

struct MeasuredFour {
    update: vec4<u32>,
    parameter: vec4<u32>,
}

fn measured_four(first: u32, last: u32) -> MeasuredFour {
    let i = vec4(first) + vec4(0u, 1u, 2u, 3u) * COLUMNS;
    // Past the end of the chunk its last element, which then counts for nothing.
    let k = min(i, vec4(last));
    let four = four_of(chunk, k);
    let a = measured(four.a.own, four.a.word, k.x);
    let b = measured(four.b.own, four.b.word, k.y);
    let c = measured(four.c.own, four.c.word, k.z);
    let d = measured(four.d.own, four.d.word, k.w);
    let none = vec4(0u);
    let inside = i <= vec4(last);
    return MeasuredFour(
        select(none, vec4(a.x, b.x, c.x, d.x), inside), select(none, vec4(a.y, b.y, c.y, d.y), inside)
    );
}

fn columns_at(column: u32, last: u32) -> Columns {
    var four: array<MeasuredFour, 4>;
    four[0] = measured_four(column, last);
    if last >= 4u * COLUMNS {
        four[1] = measured_four(column + 4u * COLUMNS, last);
    }
    if last >= 8u * COLUMNS {
        four[2] = measured_four(column + 8u * COLUMNS, last);
    }
    if last >= 12u * COLUMNS {
        four[3] = measured_four(column + 12u * COLUMNS, last);
    }
    return Columns(
        Column(four[0].update, four[1].update, four[2].update, four[3].update),
        Column(four[0].parameter, four[1].parameter, four[2].parameter, four[3].parameter)
    );
}
