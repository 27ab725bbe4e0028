// Elements as magnitude bits of an f32 (sign cleared), by integer code alone: WGSL lets a driver
// flush subnormals and assume away NaN in float code, never in integer code.

const INFINITY_BITS: u32 = 0x7f800000u;
const QUIET_NAN_BITS: u32 = 0x7fc00000u;
const ONE_BITS: u32 = 0x3f800000u;
const LARGEST_BITS: u32 = 0x7f7fffffu; // of f32

// f32 bits of an f16: every f16 is an f32 exactly, its subnormals normal ones.
fn f16_to_f32(half: u32) -> u32 {
    let sign = (half & 0x8000u) << 16u;
    let bits = half & 0x7fffu;
    if bits >= 0x7c00u {
        return sign | INFINITY_BITS | ((bits & 0x3ffu) << 13u);
    }
    if bits >= 0x400u {
        return sign | ((bits << 13u) + (112u << 23u));
    }
    if bits == 0u {
        return sign;
    }
    let top = 31u - countLeadingZeros(bits);
    return sign | ((103u + top) << 23u) | ((bits << (23u - top)) & 0x7fffffu);
}

// The f16 nearest to an f32, ties to even; above the largest f16 infinity, NaN stays NaN.
fn f32_to_f16(bits: u32) -> u32 {
    let sign = (bits >> 16u) & 0x8000u;
    let b = bits & 0x7fffffffu;
    if b > INFINITY_BITS {
        return sign | 0x7e00u | ((b >> 13u) & 0x3ffu);
    }
    if b >= 0x477ff000u { // 65520 and more round to infinity
        return sign | 0x7c00u;
    }
    if b >= 0x38800000u { // normal f16: a carry out of the mantissa is the right exponent
        let low = b & 0x1fffu;
        let kept = (b - (112u << 23u)) >> 13u;
        return sign | (kept + u32(low > 0x1000u || (low == 0x1000u && (kept & 1u) == 1u)));
    }
    if b < 0x33000000u { // below half of the smallest subnormal
        return sign;
    }
    let shift = 126u - (b >> 23u); // 14 to 24: m is the value in units of 2^(-24 - shift)
    let m = normal_mantissa_of(b);
    let kept = m >> shift;
    let low = m & ((1u << shift) - 1u);
    let tie = 1u << (shift - 1u);
    return sign | (kept + u32(low > tie || (low == tie && (kept & 1u) == 1u)));
}

// The bf16 nearest to an f32, ties to even; NaN stays NaN.
fn f32_to_bf16(bits: u32) -> u32 {
    if (bits & 0x7fffffffu) > INFINITY_BITS {
        return (bits >> 16u) | 0x40u;
    }
    return (bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u;
}
