// Magnitudes of four elements of f16 as f32 bits, without a branch: a subnormal's integer of 10 bits converts to f32 exactly,
// as a normal one.
fn magnitudes_of(words: vec4<u32>, elements: vec4<u32>) -> vec4<u32> {
    let half = (words >> ((elements & vec4(1u)) << vec4(4u))) & vec4(0x7fffu);
    let small = select(bitcast<vec4<u32>>(vec4<f32>(half)) - vec4(24u << 23u), vec4(0u), half == vec4(0u));
    let normal = (half << vec4(13u)) + vec4(112u << 23u);
    let special = vec4(INFINITY_BITS) | ((half & vec4(0x3ffu)) << vec4(13u));
    return select(select(normal, special, half >= vec4(0x7c00u)), small, half < vec4(0x400u));
}
