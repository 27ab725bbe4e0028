// Results of what is finite stay finite, at most the largest f32.

fn is_finite(bits: u32) -> bool {
    return (bits & 0x7fffffffu) < INFINITY_BITS;
}

// A NaN, of which the state may have brought one, stays.
fn within(value: f32, finite: bool) -> f32 {
    let bits = bitcast<u32>(value);
    let limited = select(bits, (bits & 0x80000000u) | LARGEST_BITS, finite && (bits & 0x7fffffffu) == INFINITY_BITS);
    return bitcast<f32>(limited);
}
