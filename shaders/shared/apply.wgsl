// What an outcome does to one element, given and returned as f32 bits.
fn applied(bits: u32, outcome: Outcome) -> u32 {
    let action = outcome.action & ~SANITIZE;
    if action == FILL {
        return outcome.scale;
    }
    let magnitude = bits & 0x7fffffffu;
    if (outcome.action & SANITIZE) != 0u && magnitude >= INFINITY_BITS {
        return 0u;
    }
    if action == MULTIPLY {
        return product(bits, outcome.scale, outcome.rescale);
    }
    if action == SIGN {
        return select((bits & 0x80000000u) | outcome.scale, bits, magnitude == 0u);
    }
    if action == CLAMP {
        let unscaled = unscaled_by(bits, outcome.unscale);
        let size = unscaled & 0x7fffffffu;
        let over = size > outcome.scale && size <= INFINITY_BITS; // NaN stays
        return select(unscaled, (bits & 0x80000000u) | outcome.scale, over);
    }
    return bits;
}

fn unscaled_by(bits: u32, unscale: u32) -> u32 {
    if unscale == ONE_BITS || (bits & 0x7fffffffu) >= INFINITY_BITS {
        return bits;
    }
    return product(bits, unscale, ONE_BITS);
}

fn product(bits: u32, scale: u32, rescale: u32) -> u32 {
    let field = (bits >> 23u) & 0xffu;
    // A driver may flush subnormal operands and results of float code.
    if rescale != ONE_BITS || field == 0u || scale < 0x800000u || field + (scale >> 23u) < 129u {
        return product_by_integers(bits, scale, rescale);
    }
    return bitcast<u32>(bitcast<f32>(bits) * bitcast<f32>(scale));
}

// The same product, rounded once to nearest-even, for any factor and any size of result.
fn product_by_integers(bits: u32, scale: u32, rescale: u32) -> u32 {
    let exact = multiply(from_f32(bits & 0x7fffffffu), from_f32(scale));
    let twice = 2 * (i32(rescale >> 23u) - 127);
    let moved = Real(exact.mantissa, exact.exponent + twice, exact.sticky);
    return (bits & 0x80000000u) | to_f32(rounded(moved, F32_MIN_EXPONENT));
}
