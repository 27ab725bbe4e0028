// Elements of 16 bits of a parameter. A row begins with a word, or is one element in the upper half of a word.

//@each slot
fn half_at_SLOT(row: FusedRow, i: u32) -> u32 {
    let e = row.half + i;
    return parameter_of_half((OPERANDHALF[e >> 1u] >> (16u * (e & 1u))) & 0xffffu);
}

// The halves of a word, of which some move.
fn put_halves_SLOT(row: FusedRow, i: u32, halves: vec2<u32>, moves: vec2<bool>) {
    let e = row.half + i;
    let shift = 16u * (e & 1u);
    let mask = (select(0u, 0xffffu, moves.x) | select(0u, 0xffff0000u, moves.y)) << shift;
    let bits = (halves.x | (halves.y << 16u)) << shift;
    if mask == 0xffffffffu {
        OPERANDHALF[e >> 1u] = bits;
    } else if mask != 0u {
        OPERANDHALF[e >> 1u] = (OPERANDHALF[e >> 1u] & ~mask) | (bits & mask);
    }
}
//@end
