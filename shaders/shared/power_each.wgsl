// What an invocation of reduce_power.wgsl sees and adds up, element by element.

fn largest_of(row: ChunkRow, lane: u32, len: u32, most: u32) -> u32 {
    var top = 0u;
    for (var i = lane; i < len; i += WORKGROUP) {
        let magnitude = fetch_single(row.slot_len >> LEN_BITS, row.start, i, len - 1u);
        if magnitude <= most {
            top = max(top, magnitude);
        } else {
            atomicAdd(&chunk_non_finite, 1u);
            atomicMax(&chunk_nan, u32(magnitude > INFINITY_BITS));
        }
    }
    return top;
}

fn powers_of(row: ChunkRow, lane: u32, len: u32, most: u32, largest: u32) -> f32 {
    var powers = 0.0;
    for (var i = lane; i < len; i += WORKGROUP) {
        let magnitude = fetch_single(row.slot_len >> LEN_BITS, row.start, i, len - 1u);
        if magnitude <= most {
            powers += power_of_ratio(magnitude, largest);
        }
    }
    return powers;
}
