// Products of four f32 by float code, and which those are.

// Products of what is not finite are not either, though a device may choose the NaN.
const INFINITY_STAYS: bool = true;

// The magnitude above the top bit, less 1: zeros, whose products no driver changes, count as the largest.
fn least_of(v: vec4<u32>) -> vec4<u32> {
    return (v << vec4(1u)) - vec4(1u);
}

// Whether neither the smallest element nor its product is subnormal.
fn enough(least: u32, field_of_scale: u32) -> bool {
    let field = least >> 24u;
    return field != 0u && field + field_of_scale >= 129u;
}

fn top_of(v: vec4<u32>) -> vec4<u32> {
    return v & vec4(0x7fffffffu);
}

fn not_too_large(top: u32, field_of_scale: u32) -> bool {
    return top < INFINITY_BITS && (top >> 23u) + field_of_scale <= 379u;
}

// With a factor for each, which is both the lower and the upper one.
fn product_of(v: vec4<u32>, scale: vec4<f32>, same: vec4<f32>) -> vec4<u32> {
    return bitcast<vec4<u32>>(bitcast<vec4<f32>>(v) * scale);
}
