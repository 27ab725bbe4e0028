// The bits of an f32 taken apart: without its sign it is mantissa * 2^(field - 150), the mantissa below 2^24, and the field at
// least 1, which is that of subnormals.

fn field_of(magnitude: u32) -> u32 {
    return max(magnitude >> 23u, 1u);
}

fn mantissa_of(magnitude: u32, field: u32) -> u32 {
    return magnitude - ((field - 1u) << 23u);
}

fn four_fields_of(magnitudes: vec4<u32>) -> vec4<u32> {
    return max(magnitudes >> vec4(23u), vec4(1u));
}

fn four_mantissas_of(magnitudes: vec4<u32>, fields: vec4<u32>) -> vec4<u32> {
    return magnitudes - ((fields - vec4(1u)) << vec4(23u));
}

// Of a normal f32, whatever its sign.
fn normal_mantissa_of(bits: u32) -> u32 {
    return (bits & 0x7fffffu) | 0x800000u;
}

// Whatever its sign; 0 for zeros and subnormals.
fn field_in(bits: u32) -> u32 {
    return (bits >> 23u) & 0xffu;
}
