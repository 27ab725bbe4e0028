// f16 as elements of 2 bytes.

const LARGEST_HALF: u32 = 0x7bffu;

fn half_to_f32(half: u32) -> u32 {
    return f16_to_f32(half);
}

fn f32_to_half(bits: u32) -> u32 {
    return f32_to_f16(bits);
}
