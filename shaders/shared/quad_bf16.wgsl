// Magnitudes of four elements of bf16 as f32 bits.
fn magnitudes_of(words: vec4<u32>, elements: vec4<u32>) -> vec4<u32> {
    return ((words >> ((elements & vec4(1u)) << vec4(4u))) & vec4(0x7fffu)) << vec4(16u);
}
