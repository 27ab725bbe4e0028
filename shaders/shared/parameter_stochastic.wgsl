// Parameters of bf16 alone, rounded up with the probability that keeps their mean.

//@each slot
fn parameter_SLOT(row: FusedRow, i: u32) -> u32 {
    return half_at_SLOT(row, i);
}

// Both halves of a word are put at once.
fn put_parameter_SLOT(row: FusedRow, i: u32, bits: u32) {}
//@end

// Four times 16 bits for the elements 4 n to 4 n + 3 of a tensor in this step.
fn random_of_four(tensor: FusedTensor, n: u32) -> vec2<u32> {
    return threefry(vec2(n, progress.updates), vec2(tensor.seed[0], tensor.seed[1]));
}

fn random_of(four: vec2<u32>, element: u32) -> u32 {
    let word = select(four.x, four.y, (element & 2u) != 0u);
    return (word >> (16u * (element & 1u))) & 0xffffu;
}

// What is finite stays finite, and what a bf16 holds stays as it is.
fn rounded_by_chance(bits: u32, random: u32) -> u32 {
    if (bits & 0x7fffffffu) > INFINITY_BITS {
        return f32_to_bf16(bits);
    }
    let magnitude = ((bits & 0x7fffffffu) + random) >> 16u;
    let most = select(0x7f7fu, 0x7f80u, (bits & 0x7fffffffu) == INFINITY_BITS);
    return ((bits >> 16u) & 0x8000u) | min(magnitude, most);
}

fn halves_of(row: FusedRow, tensor: FusedTensor, i: u32, low: u32, high: u32) -> vec2<u32> {
    let e = row.first + i;
    let four = random_of_four(tensor, e >> 2u);
    var next = four;
    if ((e + 1u) >> 2u) != (e >> 2u) {
        next = random_of_four(tensor, (e + 1u) >> 2u);
    }
    return vec2(rounded_by_chance(low, random_of(four, e)), rounded_by_chance(high, random_of(next, e + 1u)));
}
