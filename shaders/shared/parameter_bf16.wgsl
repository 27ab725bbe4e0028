// Parameters of bf16, rounded to nearest-even.

fn parameter_of_half(half: u32) -> u32 {
    return half << 16u;
}

fn parameter_as_half(bits: u32) -> u32 {
    return f32_to_bf16(bits);
}
