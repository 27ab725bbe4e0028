// Powers of magnitude ratios for norms with any p. Exponents are taken apart by integer code, so
// that neither subnormals nor the range of f32 play a part; only the logarithm of a ratio of two
// mantissas and the power itself are float code. Records hold f32 bits in the lowest word of the
// mantissa, the sum of (|g| / largest)^p, and the largest magnitude's bits in the exponent.

// (magnitude / largest)^P, both as f32 bits, magnitude <= largest.
fn power_of_ratio(magnitude: u32, largest: u32) -> f32 {
    if magnitude == 0u {
        return 0.0;
    }
    let field = field_of(magnitude);
    let field_largest = field_of(largest);
    let mantissa = mantissa_of(magnitude, field);
    let mantissa_largest = mantissa_of(largest, field_largest);
    let up = normalising_shift(mantissa);
    let up_largest = normalising_shift(mantissa_largest);
    let ratio = f32(mantissa << up) / f32(mantissa_largest << up_largest);
    let exponents = i32(field) - i32(up) - i32(field_largest) + i32(up_largest);
    return exp2(P * (log2(ratio) + f32(exponents)));
}

fn normalising_shift(mantissa: u32) -> u32 {
    return countLeadingZeros(mantissa) - 8u;
}
