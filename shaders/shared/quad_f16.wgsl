// Magnitudes of four elements of f16 as f32 bits.
alias Cols = vec4<u32>;
alias Reals = vec4<f32>;

fn magnitudes_of(words: vec4<u32>, elements: vec4<u32>) -> vec4<u32> {
    return f32_bits_of((words >> ((elements & vec4(1u)) << vec4(4u))) & vec4(0x7fffu));
}
