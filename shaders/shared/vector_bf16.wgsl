// Products of eight bf16 by float code, and which those are.

// The product of a NaN is some NaN, which a device may choose: rounded, its largest would be a zero; what is not finite is left to the integers.
const INFINITY_STAYS: bool = false;

// Magnitudes above the top bit, less one unit: zeros, whose products no driver changes, count as the largest.
fn least_of(v: vec4<u32>) -> vec4<u32> {
    let unit = vec4(1u << 17u);
    return min((v << vec4(17u)) - unit, ((v & vec4(0x7fff0000u)) << vec4(1u)) - unit);
}

// Whether neither the smallest element nor its product is subnormal.
fn enough(least: u32, field_of_scale: u32) -> bool {
    let field = least >> 24u;
    return field != 0u && field + field_of_scale >= 129u;
}

fn top_of(v: vec4<u32>) -> vec4<u32> {
    return max((v << vec4(16u)) & vec4(0x7fff0000u), v & vec4(0x7fff0000u));
}

fn not_too_large(top: u32, field_of_scale: u32) -> bool {
    return top < INFINITY_BITS && (top >> 23u) + field_of_scale <= 379u;
}

// To nearest, ties to even, in the upper half.
fn nearest(bits: vec4<u32>) -> vec4<u32> {
    return bits + vec4(0x7fffu) + ((bits >> vec4(16u)) & vec4(1u));
}

// With a factor for each, of lower halves and of upper ones.
fn product_of(v: vec4<u32>, low_scale: vec4<f32>, high_scale: vec4<f32>) -> vec4<u32> {
    let low = bitcast<vec4<u32>>(bitcast<vec4<f32>>(v << vec4(16u)) * low_scale);
    let high = bitcast<vec4<u32>>(bitcast<vec4<f32>>(v & vec4(0xffff0000u)) * high_scale);
    return (nearest(low) >> vec4(16u)) | (nearest(high) & vec4(0xffff0000u));
}
