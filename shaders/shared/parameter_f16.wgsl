// Parameters of f16, rounded to nearest-even.

fn parameter_of_half(half: u32) -> u32 {
    return f16_to_f32(half);
}

fn parameter_as_half(bits: u32) -> u32 {
    return f32_to_f16(bits);
}
