// More of unsigned integers of 64 bits.

// The upper half of the product of 128 bits.
fn mulhi64(a: U64, b: U64) -> U64 {
    let low = mul32(a.lo, b.lo).hi;
    let first = mul32(a.lo, b.hi);
    let second = mul32(a.hi, b.lo);
    // At most (2^32 - 1) 2^32: neither sum carries out of 64 bits.
    let middle = add64(first, U64(low, 0u));
    let carried = add64(second, U64(middle.lo, 0u));
    return add64(mul32(a.hi, b.hi), add64(U64(middle.hi, 0u), U64(carried.hi, 0u)));
}

// Any shift; 64 and more give 0.
fn shl64(a: U64, shift: u32) -> U64 {
    if shift == 0u {
        return a;
    }
    if shift < 32u {
        return U64(a.lo << shift, (a.hi << shift) | (a.lo >> (32u - shift)));
    }
    if shift < 64u {
        return U64(0u, a.lo << (shift - 32u));
    }
    return U64(0u, 0u);
}

fn leading_zeros64(a: U64) -> u32 {
    return select(countLeadingZeros(a.hi), 32u + countLeadingZeros(a.lo), a.hi == 0u);
}

// In two's complement.
fn negated64(a: U64) -> U64 {
    return sub64(U64(0u, 0u), a);
}

fn signed64(magnitude: U64, negative: bool) -> U64 {
    if negative {
        return negated64(magnitude);
    }
    return magnitude;
}
