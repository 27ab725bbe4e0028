// Magnitudes of four elements of f32.
fn magnitudes_of(words: vec4<u32>, elements: vec4<u32>) -> vec4<u32> {
    return words & vec4(0x7fffffffu);
}
