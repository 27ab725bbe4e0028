// Reals of real.wgsl rounded, and as f32.

// To 24 bits, to nearest, ties to even; fewer where the exponent would fall below the least one.
fn rounded(a: Real, least: i32) -> Rounded {
    if a.mantissa == 0u {
        return Rounded(0u, least);
    }
    let exponent = max(a.exponent + 8, least);
    let shift = u32(exponent - a.exponent); // 8 or more
    if shift > 32u {
        return Rounded(0u, least);
    }
    // shift 32: the kept part is 0 and the whole mantissa is the fraction.
    let kept = select(a.mantissa >> (shift & 31u), 0u, shift == 32u);
    let fraction = a.mantissa << ((32u - shift) & 31u); // top bit is the half
    let up = fraction > 0x80000000u || (fraction == 0x80000000u && (a.sticky == 1u || (kept & 1u) == 1u));
    let mantissa = kept + u32(up);
    if mantissa == 0x1000000u {
        return Rounded(0x800000u, exponent + 1);
    }
    return Rounded(mantissa, exponent);
}

// This and `by` units of the last of 32 bits more, rounded up. Zero stays.
fn enlarged(a: Real, by: u32) -> Real {
    if a.mantissa == 0u {
        return a;
    }
    let mantissa = a.mantissa + by;
    if mantissa < by {
        return Real((mantissa >> 1u) + 0x80000001u, a.exponent + 1, a.sticky);
    }
    return Real(mantissa, a.exponent, a.sticky);
}

// To 24 bits, not above the value; fewer where the exponent would fall below the least one.
fn rounded_down(a: Real, least: i32) -> Rounded {
    let exponent = max(a.exponent + 8, least);
    let shift = u32(exponent - a.exponent);
    let mantissa = select(a.mantissa >> (shift & 31u), 0u, shift > 31u);
    return Rounded(mantissa, select(exponent, least, mantissa == 0u));
}

// To 24 bits, not below the value, although f may reach 2.
fn rounded_up(a: Real) -> Rounded {
    let whole = enlarged(a, 2u * a.sticky);
    let mantissa = (whole.mantissa >> 8u) + u32((whole.mantissa & 0xffu) != 0u);
    if mantissa == 0u {
        return Rounded(0u, NO_MIN_EXPONENT);
    }
    if mantissa == 0x1000000u {
        return Rounded(0x800000u, whole.exponent + 9);
    }
    return Rounded(mantissa, whole.exponent + 8);
}

// The f32 equal to a value rounded with least exponent F32_MIN_EXPONENT; infinity above the largest.
fn to_f32(a: Rounded) -> u32 {
    if a.mantissa < 0x800000u {
        return a.mantissa;
    }
    let field = a.exponent + 150;
    if field >= 255 {
        return INFINITY_BITS;
    }
    return (u32(field) << 23u) | (a.mantissa & 0x7fffffu);
}

// An f32 as it is.
fn exactly(bits: u32) -> Rounded {
    return rounded(from_f32(bits), NO_MIN_EXPONENT);
}
