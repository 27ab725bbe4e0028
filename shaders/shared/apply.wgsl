// What an outcome does to one element, given and returned as f32 bits.
fn applied(bits: u32, outcome: Outcome) -> u32 {
    if outcome.action == FILL {
        return outcome.scale;
    }
    let field = (bits >> 23u) & 0xffu;
    if outcome.action == SANITIZE && field == 255u {
        return 0u;
    }
    // A driver may flush subnormal operands and results of float code.
    if outcome.rescale != ONE_BITS || field == 0u || field + (outcome.scale >> 23u) < 129u {
        return applied_by_integers(bits, outcome);
    }
    return bitcast<u32>(bitcast<f32>(bits) * bitcast<f32>(outcome.scale));
}

// The same product, rounded once to nearest-even, for any factor and any size of result.
fn applied_by_integers(bits: u32, outcome: Outcome) -> u32 {
    let product = multiply(from_f32(bits & 0x7fffffffu), from_f32(outcome.scale));
    let twice = 2 * (i32(outcome.rescale >> 23u) - 127);
    let exact = Real(product.mantissa, product.exponent + twice, product.sticky);
    return (bits & 0x80000000u) | to_f32(rounded(exact, F32_MIN_EXPONENT));
}
