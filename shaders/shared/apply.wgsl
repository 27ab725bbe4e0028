// What an outcome does to one element, given and returned as f32 bits.
fn applied(bits: u32, outcome: Outcome) -> u32 {
    let action = outcome.action & ~(SANITIZE | TOWARD_ZERO);
    if action == FILL {
        return outcome.scale;
    }
    let magnitude = bits & 0x7fffffffu;
    if (outcome.action & SANITIZE) != 0u && !unscales_finitely(magnitude, outcome.unscale) {
        return 0u;
    }
    if action == MULTIPLY {
        if (outcome.action & TOWARD_ZERO) != 0u {
            return product_toward_zero(bits, outcome.scale, outcome.rescale);
        }
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

fn unscales_finitely(magnitude: u32, unscale: u32) -> bool {
    if magnitude >= INFINITY_BITS || unscale <= ONE_BITS {
        return magnitude < INFINITY_BITS;
    }
    return to_f32(rounded(multiply(from_f32(magnitude), from_f32(unscale)), F32_MIN_EXPONENT)) < INFINITY_BITS;
}

fn unscaled_by(bits: u32, unscale: u32) -> u32 {
    if unscale == ONE_BITS || (bits & 0x7fffffffu) >= INFINITY_BITS {
        return bits;
    }
    return product(bits, unscale, ONE_BITS);
}

fn product(bits: u32, scale: u32, rescale: u32) -> u32 {
    let field = field_in(bits);
    if rescale != ONE_BITS || field == 0u || scale < 0x800000u || !is_plain(field + (scale >> 23u)) {
        return product_by_integers(bits, scale, rescale);
    }
    return bitcast<u32>(bitcast<f32>(bits) * bitcast<f32>(scale));
}

// Whether a product of normal f32 is one for float code, by the sum of their exponent fields: a driver may flush
// what is subnormal, and what is above the largest f32 would become infinite.
fn is_plain(fields: u32) -> bool {
    return fields - 129u <= 250u;
}

// |bits| * scale * rescale^2.
fn exact_product(bits: u32, scale: u32, rescale: u32) -> Real {
    let exact = multiply(from_f32(bits & 0x7fffffffu), from_f32(scale));
    return Real(exact.mantissa, exact.exponent + 2 * (i32(rescale >> 23u) - 127), exact.sticky);
}

// The same product, rounded once to nearest-even, for any factor and any size of result; at most the largest
// f32. What is not finite stays.
fn product_by_integers(bits: u32, scale: u32, rescale: u32) -> u32 {
    if (bits & 0x7fffffffu) >= INFINITY_BITS {
        return bits;
    }
    let near = to_f32(rounded(exact_product(bits, scale, rescale), F32_MIN_EXPONENT));
    return (bits & 0x80000000u) | min(near, LARGEST_BITS);
}

fn product_toward_zero(bits: u32, scale: u32, rescale: u32) -> u32 {
    let cut = to_f32(rounded_down(exact_product(bits, scale, rescale), F32_MIN_EXPONENT));
    return (bits & 0x80000000u) | min(cut, LARGEST_BITS);
}
