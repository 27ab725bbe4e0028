// bf16 as elements of 2 bytes.

const LARGEST_HALF: u32 = 0x7f7fu;

fn half_to_f32(half: u32) -> u32 {
    return half << 16u;
}

fn f32_to_half(bits: u32) -> u32 {
    return f32_to_bf16(bits);
}
