// 8 bytes: four columns of 16-bit elements.
alias Row = vec2<u32>;

// Elements in the upper halves of words.
fn at_top(row: Row) -> Cols {
    return vec4(row.x << 16u, row.x & 0xffff0000u, row.y << 16u, row.y & 0xffff0000u);
}

// The same without signs, one bit further up, and below the odd ones what lies there.
fn without_signs(row: Row) -> Cols {
    return vec4(row.x << 17u, row.x << 1u, row.y << 17u, row.y << 1u);
}
