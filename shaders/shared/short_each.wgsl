// What an invocation of reduce_short.wgsl adds up of its team's chunk, element by element.

fn seen_in(row: ChunkRow, member: u32, len: u32, most: u32) -> Seen {
    var seen = Seen(0u, 0u, 0u);
    for (var i = member; i < len; i += TEAM) {
        let bits = fetch_single(row.slot_len >> LEN_BITS, row.start, i, len - 1u);
        seen.top = max(seen.top, select(0u, bits, bits <= most));
        seen.non_finite += u32(bits > most);
        seen.nan |= u32(bits > INFINITY_BITS);
    }
    return seen;
}

fn sum_in(row: ChunkRow, member: u32, len: u32, exponent: u32, most: u32) -> U64 {
    var total = U64(0u, 0u);
    for (var i = member; i < len; i += TEAM) {
        let any = fetch_single(row.slot_len >> LEN_BITS, row.start, i, len - 1u);
        total = with_single(total, select(0u, any, any <= most), exponent);
    }
    return total;
}
