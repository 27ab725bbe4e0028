// What an outcome does to a word, which is two elements of 16 bits.

// The largest element not above an f32 in magnitude; infinity and NaN stay.
fn half_toward_zero(bits: u32) -> u32 {
    let near = finite_half(bits);
    let above = (half_to_f32(near) & 0x7fffffffu) > (bits & 0x7fffffffu);
    return near - u32(above);
}

// The nearest element, which is finite where the f32 is.
fn finite_half(bits: u32) -> u32 {
    let near = f32_to_half(bits);
    if (bits & 0x7fffffffu) >= INFINITY_BITS {
        return near;
    }
    return (near & 0x8000u) | min(near & 0x7fffu, LARGEST_HALF);
}

fn applied_half(half: u32, outcome: Outcome) -> u32 {
    if outcome.action == KEEP {
        return half;
    }
    var own = outcome;
    if (outcome.action & ~SANITIZE) == CLAMP {
        // The limit as an element: every element within it is at most this.
        own.scale = half_to_f32(half_toward_zero(outcome.scale));
    }
    let bits = applied(half_to_f32(half), own);
    if (outcome.action & TOWARD_ZERO) != 0u {
        return half_toward_zero(bits);
    }
    return finite_half(bits);
}

fn applied_pair(word: u32, low: Outcome, high: Outcome) -> u32 {
    return applied_half(word & 0xffffu, low) | (applied_half(word >> 16u, high) << 16u);
}

fn applied_word(word: u32, outcome: Outcome) -> u32 {
    return applied_pair(word, outcome, outcome);
}
