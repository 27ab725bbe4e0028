// What an invocation of reduce_short.wgsl adds up of its team's chunk, sixteen elements at a time.

fn seen_in(row: ChunkRow, member: u32, len: u32, most: u32) -> Seen {
    var seen = Seen(0u, 0u, 0u);
    for (var i = member; i < len; i += 16u * TEAM) {
        seen = with_seen(seen, quads_of_chunk(row, i, TEAM, len), most);
    }
    return seen;
}

fn sum_in(row: ChunkRow, member: u32, len: u32, exponent: u32, most: u32) -> U64 {
    var total = U64(0u, 0u);
    for (var i = member; i < len; i += 16u * TEAM) {
        total = with_singles(total, finite_in(quads_of_chunk(row, i, TEAM, len), most), exponent);
    }
    return total;
}
