// Powers of magnitude ratios for norms with any p. Exponents are taken apart by integer code, so
// that neither subnormals nor the range of f32 play a part; only the logarithm of a ratio of two
// mantissas and the power itself are float code. Records hold f32 bits in the lowest word of the
// mantissa, the sum of (|g| / largest)^p, and the largest magnitude's bits in the exponent.

// (magnitude / largest)^P, both as f32 bits, magnitude <= largest.
fn power_of_ratio(magnitude: u32, largest: u32) -> f32 {
    if magnitude == 0u {
        return 0.0;
    }
    let up = normalising_shift(magnitude);
    let up_largest = normalising_shift(largest);
    let ratio = f32(mantissa_of(magnitude) << up) / f32(mantissa_of(largest) << up_largest);
    let exponents = i32(field_of(magnitude)) - i32(up) - i32(field_of(largest)) + i32(up_largest);
    return exp2(P * (log2(ratio) + f32(exponents)));
}

fn field_of(bits: u32) -> u32 {
    return max(bits >> 23u, 1u);
}

fn mantissa_of(bits: u32) -> u32 {
    return bits - ((field_of(bits) - 1u) << 23u);
}

fn normalising_shift(bits: u32) -> u32 {
    return countLeadingZeros(mantissa_of(bits)) - 8u;
}
