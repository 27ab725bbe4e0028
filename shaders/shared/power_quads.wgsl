// What an invocation of reduce_power.wgsl sees and adds up, sixteen elements at a time, in the same order as one by one.

fn largest_of(row: ChunkRow, lane: u32, len: u32, most: u32) -> u32 {
    var seen = Seen(0u, 0u, 0u);
    for (var i = lane; i < len; i += 16u * WORKGROUP) {
        seen = with_seen(seen, quads_of_chunk(row, i, WORKGROUP, len), most);
    }
    if seen.non_finite != 0u {
        atomicAdd(&chunk_non_finite, seen.non_finite);
        atomicMax(&chunk_nan, seen.nan);
    }
    return seen.top;
}

fn with_powers(powers: f32, m: vec4<u32>, largest: u32) -> f32 {
    let two = powers + power_of_ratio(m.x, largest) + power_of_ratio(m.y, largest);
    return two + power_of_ratio(m.z, largest) + power_of_ratio(m.w, largest);
}

fn powers_of(row: ChunkRow, lane: u32, len: u32, most: u32, largest: u32) -> f32 {
    var powers = 0.0;
    for (var i = lane; i < len; i += 16u * WORKGROUP) {
        let m = finite_in(quads_of_chunk(row, i, WORKGROUP, len), most);
        powers = with_powers(with_powers(powers, m.a, largest), m.b, largest);
        powers = with_powers(with_powers(powers, m.c, largest), m.d, largest);
    }
    return powers;
}
