// bf16 of f32, to nearest, ties to even: an invocation a word of two.

@group(0) @binding(0) var<storage, read> masters: array<f32>;
@group(0) @binding(1) var<storage, read_write> narrowed: array<u32>;

fn bf16(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    return (bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u;
}

@compute @workgroup_size(64)
fn narrow(@builtin(global_invocation_id) id: vec3u) {
    if id.x < arrayLength(&narrowed) {
        narrowed[id.x] = bf16(masters[2u * id.x]) | (bf16(masters[2u * id.x + 1u]) << 16u);
    }
}
