// A standard normal number of 128 random bits, by integer arithmetic alone: Box and Muller 1958. src/cpu/gaussian.rs is the
// twin, and derives the error.

// |z| = mantissa * 2^-(31 + halves).
struct Normal {
    mantissa: U64,
    halves: u32,
    negative: bool,
}

// w in (1/2, 1] times 1 + 2^-k where that stays below 1, and the logarithms of such factors so far, in units of 2^-58.
struct Reduced {
    w: U64,
    logarithm: U64,
}

fn reduced_by(r: Reduced, k: u32, logarithm: U64) -> Reduced {
    let w = add64(r.w, shr64(r.w, k));
    if less64(w, r.w) {
        return r;
    }
    return Reduced(w, add64(r.logarithm, logarithm));
}

// -ln(1 - v) for v below 2^-7, both in units of 2^-64: the series up to v^8.
fn series_of_logarithm(v: U64) -> U64 {
    var sum = U64(0x00000000u, 0x20000000u);
    sum = add64(U64(0x92492492u, 0x24924924u), mulhi64(v, sum));
    sum = add64(U64(0xaaaaaaabu, 0x2aaaaaaau), mulhi64(v, sum));
    sum = add64(U64(0x33333333u, 0x33333333u), mulhi64(v, sum));
    sum = add64(U64(0x00000000u, 0x40000000u), mulhi64(v, sum));
    sum = add64(U64(0x55555555u, 0x55555555u), mulhi64(v, sum));
    sum = add64(U64(0x00000000u, 0x80000000u), mulhi64(v, sum));
    return add64(v, mulhi64(mulhi64(v, v), sum));
}

// cos(pi / 2 * f), f in units of 2^-64, in units of 2^-63: the series up to f^22.
fn cosine(f: U64) -> U64 {
    let y = mulhi64(f, f);
    var sum = U64(0x000000a9u, 0x00000000u);
    sum = sub64(U64(0x00007bdcu, 0x00000000u), mulhi64(y, sum));
    sum = sub64(U64(0x004a8316u, 0x00000000u), mulhi64(y, sum));
    sum = sub64(U64(0x2418c586u, 0x00000000u), mulhi64(y, sum));
    sum = sub64(U64(0xb7127a26u, 0x0000000du), mulhi64(y, sum));
    sum = sub64(U64(0xa7146ec8u, 0x000003f3u), mulhi64(y, sum));
    sum = sub64(U64(0xf9510254u, 0x0000d368u), mulhi64(y, sum));
    sum = sub64(U64(0x6891babbu, 0x001e1f50u), mulhi64(y, sum));
    sum = sub64(U64(0xc797ff40u, 0x02aba78fu), mulhi64(y, sum));
    sum = sub64(U64(0x36b58767u, 0x20783e10u), mulhi64(y, sum));
    sum = sub64(U64(0xf22ef2d2u, 0x9de9e64du), mulhi64(y, sum));
    let rest = mulhi64(y, sum);
    let one = U64(0x00000000u, 0x80000000u);
    if less64(one, rest) {
        return U64(0u, 0u);
    }
    return sub64(one, rest);
}

// The root of value * 2^48, rounded down: 56 binary digits, two of the value at a time.
fn root56(value: U64) -> U64 {
    var rest = U64(0u, 0u);
    var root = U64(0u, 0u);
    var digits = value;
    let last = min(1u, value.hi); // 1, but no constant: unrolled, this takes Mesa seconds to compile
    for (var left = 56u; left >= last; left--) {
        rest = add64(shl64(rest, 2u), U64(digits.hi >> 30u, 0u));
        digits = shl64(digits, 2u);
        let trial = add64(shl64(root, 2u), U64(1u, 0u));
        root = shl64(root, 1u);
        if !less64(rest, trial) {
            rest = sub64(rest, trial);
            root.lo |= 1u;
        }
    }
    return root;
}

fn normal(first: U64, second: U64) -> Normal {
    let odd = U64(first.lo | 1u, first.hi);
    let zeros = leading_zeros64(odd);
    var r = Reduced(shl64(odd, zeros), U64(0u, 0u));
    let ln2 = U64(0xdf473de7u, 0x02c5c85fu);
    // 63 times that fits 64 bits.
    let low = mul32(ln2.lo, zeros);
    r.logarithm = U64(low.lo, low.hi + ln2.hi * zeros);
    r = reduced_by(r, 1u, U64(0xcbf984bfu, 0x019f323eu));
    r = reduced_by(r, 2u, U64(0x3cd4d10du, 0x00e47fbeu));
    r = reduced_by(r, 3u, U64(0xb8abcb98u, 0x00789c1du));
    r = reduced_by(r, 4u, U64(0x8022c54du, 0x003e1461u));
    r = reduced_by(r, 5u, U64(0x0e783300u, 0x001f829bu));
    r = reduced_by(r, 6u, U64(0x587e01f2u, 0x000fe054u));
    r = reduced_by(r, 7u, U64(0x9ac419e2u, 0x0007f80au));
    // -ln(first / 2^64) = size * 2^-exponent.
    var size = series_of_logarithm(negated64(r.w));
    var exponent = 64u;
    if r.logarithm.lo != 0u || r.logarithm.hi != 0u {
        size = add64(r.logarithm, shr64(size, 6u));
        exponent = 58u;
    }
    let up = leading_zeros64(size);
    size = shl64(size, up);
    // Of twice that, an even one.
    exponent += up - 1u;
    if (exponent & 1u) == 1u {
        size = shr64(size, 1u);
        exponent -= 1u;
    }
    let across = cosine(shl64(second, 1u));
    return Normal(mulhi64(shl64(root56(size), 8u), across), exponent / 2u, (second.hi >> 31u) == 1u);
}

// z * scale * 2^-(drop - 31), scale a factor of 64 bits, rounded to an integer in two's complement.
fn on_grid(z: Normal, scale: U64, drop: i32) -> U64 {
    // At least 1.
    let down = u32(drop + i32(z.halves));
    let twice = shr64(mulhi64(z.mantissa, scale), min(down - 1u, 64u));
    return signed64(shr64(add64(twice, U64(1u, 0u)), 1u), z.negative);
}
