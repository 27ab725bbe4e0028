// Threefry-2x32 with 20 rounds (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): 64 bits that a counter and a key
// determine, as JAX has them. Sums of 32 bits wrap.

fn threefry_round(x: vec2<u32>, by: u32) -> vec2<u32> {
    let sum = x.x + x.y;
    return vec2(sum, ((x.y << by) | (x.y >> (32u - by))) ^ sum);
}

fn threefry_rounds(x: vec2<u32>, by: vec4<u32>) -> vec2<u32> {
    return threefry_round(threefry_round(threefry_round(threefry_round(x, by.x), by.y), by.z), by.w);
}

fn threefry(counter: vec2<u32>, key: vec2<u32>) -> vec2<u32> {
    let third = 0x1bd11bdau ^ key.x ^ key.y;
    let even = vec4(13u, 15u, 26u, 6u);
    let odd = vec4(17u, 29u, 16u, 24u);
    var x = threefry_rounds(counter + key, even) + vec2(key.y, third + 1u);
    x = threefry_rounds(x, odd) + vec2(third, key.x + 2u);
    x = threefry_rounds(x, even) + vec2(key.x, key.y + 3u);
    x = threefry_rounds(x, odd) + vec2(key.y, third + 4u);
    return threefry_rounds(x, even) + vec2(third, key.x + 5u);
}
