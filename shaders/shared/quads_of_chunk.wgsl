// Elements of a chunk, sixteen at a time, `step` apart.

fn quads_of_chunk(row: ChunkRow, first: u32, step: u32, len: u32) -> Quads {
    let i = spread(first, step, 4u * step);
    let last = vec4(len - 1u);
    let start = vec4(row.start);
    let e = Quads(start + min(i.a, last), start + min(i.b, last), start + min(i.c, last), start + min(i.d, last));
    return before(len, magnitudes_at(row.slot_len >> LEN_BITS, e, false), i);
}
