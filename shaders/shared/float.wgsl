// f32 that are not negative, as bits: correctly rounded by integer code, where WGSL would allow more than
// one answer. Results above the largest f32 are the largest f32.


fn saturated(a: Rounded) -> u32 {
    return min(to_f32(a), LARGEST_BITS);
}

fn f_of(n: u32) -> u32 {
    return saturated(rounded(normalised(n, 0, 0u), F32_MIN_EXPONENT));
}

fn f_add(a: u32, b: u32) -> u32 {
    return saturated(rounded(add(exactly(a), exactly(b)), F32_MIN_EXPONENT));
}

// |a - b|.
fn f_distance(a: u32, b: u32) -> u32 {
    return saturated(rounded(subtract(exactly(max(a, b)), exactly(min(a, b))), F32_MIN_EXPONENT));
}

fn f_mul(a: u32, b: u32) -> u32 {
    return saturated(rounded(multiply(from_f32(a), from_f32(b)), F32_MIN_EXPONENT));
}

// b not 0.
fn f_div(a: u32, b: u32) -> u32 {
    return saturated(rounded(quotient(exactly(a), exactly(b)), F32_MIN_EXPONENT));
}

fn f_sqrt(a: u32) -> u32 {
    let exact = exactly(a);
    let odd = u32(exact.exponent & 1);
    let root = square_root(U96(exact.mantissa << odd, 0u, 0u), exact.exponent - i32(odd));
    return saturated(rounded(root, F32_MIN_EXPONENT));
}

// b * m + (1 - b) * x.
fn f_average(b: u32, m: u32, x: u32) -> u32 {
    return f_add(f_mul(b, m), f_mul(f_distance(ONE_BITS, b), x));
}

// e^x for x up to 16: the series to the seventh power at x / 2^k below a quarter, squared k times. Its
// truncation error is below 4e-10 there.
fn f_exp(x: u32) -> u32 {
    var y = x;
    var k = 0u;
    while y > 0x3e800000u {
        y = f_mul(y, 0x3f000000u);
        k++;
    }
    var e = ONE_BITS;
    for (var n = 7u; n > 0u; n--) {
        e = f_add(ONE_BITS, f_mul(e, f_div(y, f_of(n))));
    }
    for (; k > 0u; k--) {
        e = f_mul(e, e);
    }
    return e;
}
