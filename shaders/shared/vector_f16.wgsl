// Products of eight f16 by float code, and which those are: all finite ones. A half is a normal f32 or zero, and a product that
// is not normal is far below the smallest half, whether a driver flushes it or not.

const INFINITY_STAYS: bool = false;

alias Cols = vec4<u32>;
alias Reals = vec4<f32>;

fn least_of(v: vec4<u32>) -> vec4<u32> {
    return v;
}

fn enough(least: u32, field_of_scale: u32) -> bool {
    return true;
}

fn top_of(v: vec4<u32>) -> vec4<u32> {
    return max(v & vec4(0x7fffu), (v >> vec4(16u)) & vec4(0x7fffu));
}

// Products beyond the largest half become that; infinity and NaN stay.
fn not_too_large(top: u32, field_of_scale: u32) -> bool {
    return top < 0x7c00u && field_of_scale <= 230u;
}

// The half nearest to a finite f32 without sign, ties to even, and at most the largest.
fn nearest(bits: vec4<u32>) -> vec4<u32> {
    // A normal half: a carry out of the mantissa is the right exponent.
    let normal = (bits - vec4(112u << 23u) + vec4(0xfffu) + ((bits >> vec4(13u)) & vec4(1u))) >> vec4(13u);
    // A subnormal one in units of 2^-24; below 2^-26 it is 0 in any case.
    let shift = min(vec4(126u) - (bits >> vec4(23u)), vec4(26u));
    let mantissa = (bits & vec4(0x7fffffu)) | vec4(0x800000u);
    let kept = mantissa >> shift;
    let half_less_1 = (vec4(1u) << (shift - vec4(1u))) - vec4(1u);
    let subnormal = (mantissa + half_less_1 + (kept & vec4(1u))) >> shift;
    return min(select(normal, subnormal, bits < vec4(113u << 23u)), vec4(0x7bffu));
}

// Of halves in the lower half of words.
fn products(half: vec4<u32>, scale: vec4<f32>) -> vec4<u32> {
    let magnitudes = bitcast<vec4<f32>>(f32_bits_of_finite(half & vec4(0x7fffu)));
    return nearest(bitcast<vec4<u32>>(magnitudes * scale)) | (half & vec4(0x8000u));
}

// With a factor for each, of lower halves and of upper ones.
fn product_of(v: vec4<u32>, low_scale: vec4<f32>, high_scale: vec4<f32>) -> vec4<u32> {
    return products(v & vec4(0xffffu), low_scale) | (products(v >> vec4(16u), high_scale) << vec4(16u));
}
