// Positive reals in integers, for the few scalars of a clip: (mantissa + f) * 2^exponent with
// 0 <= f < 1, f > 0 exactly when sticky is 1. The mantissa has its top bit set; zero is mantissa 0.

struct Real {
    mantissa: u32,
    exponent: i32,
    sticky: u32,
}

// A Real rounded: mantissa * 2^exponent, mantissa below 2^24.
struct Rounded {
    mantissa: u32,
    exponent: i32,
}

const F32_MIN_EXPONENT: i32 = -149;
const NO_MIN_EXPONENT: i32 = -100000;

fn normalised(mantissa: u32, exponent: i32, sticky: u32) -> Real {
    if mantissa == 0u {
        return Real(0u, 0, sticky);
    }
    let up = countLeadingZeros(mantissa);
    return Real(mantissa << up, exponent - i32(up), sticky);
}

fn normalised96(value: U96, exponent: i32) -> Real {
    let bits = bits96(value);
    if bits <= 32u {
        return normalised(value.lo, exponent, 0u);
    }
    let drop = bits - 32u;
    let kept = shr96(value, drop);
    let back = shl96(kept, drop);
    let sticky = u32(back.lo != value.lo || back.mid != value.mid || back.hi != value.hi);
    return Real(kept.lo, exponent + i32(drop), sticky);
}

// A finite f32 that is not negative.
fn from_f32(bits: u32) -> Real {
    let field = field_of(bits);
    return normalised(mantissa_of(bits, field), i32(field) - 150, 0u);
}

// The root of value * 2^exponent, exponent even.
fn square_root(value: U96, exponent: i32) -> Real {
    let bits = bits96(value);
    if bits == 0u {
        return Real(0u, 0, 0u);
    }
    // 63 or 64 bits, by an even shift, so that the root has 32.
    let drop = (i32(bits) - 63) & ~1;
    var scaled = value;
    var sticky = 0u;
    if drop > 0 {
        scaled = shr96(value, u32(drop));
        let back = shl96(scaled, u32(drop));
        sticky = u32(back.lo != value.lo || back.mid != value.mid || back.hi != value.hi);
    } else {
        scaled = shl96(value, u32(-drop));
    }
    // Bit by bit: root * root stays the largest square not above the operand.
    let operand = U64(scaled.lo, scaled.mid);
    var root = 0u;
    let last = min(1u, bits); // 1, but no constant: unrolled, this takes Mesa seconds to compile
    for (var bit = 0x80000000u; bit >= last; bit >>= 1u) {
        let candidate = root | bit;
        if !less64(operand, mul32(candidate, candidate)) {
            root = candidate;
        }
    }
    let rest = sub64(operand, mul32(root, root));
    return Real(root, (exponent + drop) / 2, sticky | u32(rest.lo != 0u || rest.hi != 0u));
}

fn multiply(a: Real, b: Real) -> Real {
    if a.mantissa == 0u || b.mantissa == 0u {
        return Real(0u, 0, 0u);
    }
    let p = mul32(a.mantissa, b.mantissa);
    let sticky = a.sticky | b.sticky;
    let exponent = a.exponent + b.exponent + 32;
    if (p.hi >> 31u) == 1u {
        return Real(p.hi, exponent, sticky | u32(p.lo != 0u));
    }
    return Real((p.hi << 1u) | (p.lo >> 31u), exponent - 1, sticky | u32((p.lo << 1u) != 0u));
}

// A quotient so far, and what is left to be divided.
struct Digits {
    result: u32,
    rest: u32,
}

fn more_digits(d: Digits, divisor: u32, count: u32) -> Digits {
    let moved = d.rest << count;
    let digit = moved / divisor;
    return Digits((d.result << count) | digit, moved - digit * divisor);
}

// a / b for exact a and b of at most 24 bits, b not zero.
fn quotient(a: Rounded, b: Rounded) -> Real {
    if a.mantissa == 0u {
        return Real(0u, 0, 0u);
    }
    let up_a = countLeadingZeros(a.mantissa) - 8u;
    let up_b = countLeadingZeros(b.mantissa) - 8u;
    let divisor = b.mantissa << up_b;
    let dividend = a.mantissa << up_a;
    let fits = dividend >= divisor;
    var digits = Digits(u32(fits), select(dividend, dividend - divisor, fits));
    // 30 bits, as many at a time as fit a word along with the rest of 24.
    digits = more_digits(digits, divisor, 7u);
    digits = more_digits(digits, divisor, 7u);
    digits = more_digits(digits, divisor, 7u);
    digits = more_digits(digits, divisor, 8u);
    let exponent = a.exponent - i32(up_a) - b.exponent + i32(up_b) - 29;
    return normalised(digits.result, exponent, u32(digits.rest != 0u));
}

// a + b for exact a and b.
fn add(a: Rounded, b: Rounded) -> Real {
    let x = normalised(a.mantissa, a.exponent, 0u);
    let y = normalised(b.mantissa, b.exponent, 0u);
    if x.mantissa == 0u {
        return y;
    }
    if y.mantissa == 0u {
        return x;
    }
    let x_larger = x.exponent >= y.exponent;
    let exponent = max(x.exponent, y.exponent);
    let down = u32(exponent - min(x.exponent, y.exponent));
    let large = select(y.mantissa, x.mantissa, x_larger);
    let small = select(x.mantissa, y.mantissa, x_larger);
    // 64 fraction bits hold 24 + 32 of them exactly; further down only stickiness counts.
    let full = U96(0u, 0u, small);
    let moved = shr96(full, min(down, 95u));
    let lost = u32(down > 64u);
    let total = add96(U96(0u, 0u, large), U96(moved.lo, moved.mid, moved.hi));
    if total.hi < large {
        let sticky = u32(total.lo != 0u || total.mid != 0u || (total.hi & 1u) != 0u) | lost;
        return Real((total.hi >> 1u) | 0x80000000u, exponent + 1, sticky);
    }
    return Real(total.hi, exponent, u32(total.lo != 0u || total.mid != 0u) | lost);
}

// a - b for exact a and b, a not below b.
fn subtract(a: Rounded, b: Rounded) -> Real {
    let x = normalised(a.mantissa, a.exponent, 0u);
    let y = normalised(b.mantissa, b.exponent, 0u);
    let down = u32(x.exponent - y.exponent);
    // Further down b is below a quarter of the last of 24 bits, and rounding gives a.
    if y.mantissa == 0u || down > 40u {
        return x;
    }
    let difference = sub96(U96(0u, 0u, x.mantissa), shr96(U96(0u, 0u, y.mantissa), down));
    return normalised96(difference, x.exponent - 64);
}

// Whether a > b.
fn exceeds(a: Rounded, b: Rounded) -> bool {
    let x = normalised(a.mantissa, a.exponent, 0u);
    let y = normalised(b.mantissa, b.exponent, 0u);
    if x.mantissa == 0u || y.mantissa == 0u {
        return x.mantissa > y.mantissa;
    }
    return x.exponent > y.exponent || (x.exponent == y.exponent && x.mantissa > y.mantissa);
}
