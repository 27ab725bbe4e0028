// Unsigned integers of 64 and 96 bits, least significant word first.

struct U64 {
    lo: u32,
    hi: u32,
}

struct U96 {
    lo: u32,
    mid: u32,
    hi: u32,
}

fn add64(a: U64, b: U64) -> U64 {
    let lo = a.lo + b.lo;
    return U64(lo, a.hi + b.hi + u32(lo < a.lo));
}

// Any shift; 64 and more give 0. WGSL takes shift amounts modulo 32, hence the cases.
fn shr64(a: U64, shift: u32) -> U64 {
    if shift == 0u {
        return a;
    }
    if shift < 32u {
        return U64((a.lo >> shift) | (a.hi << (32u - shift)), a.hi >> shift);
    }
    if shift < 64u {
        return U64(a.hi >> (shift - 32u), 0u);
    }
    return U64(0u, 0u);
}

// The 64-bit product of two words.
fn mul32(a: u32, b: u32) -> U64 {
    let al = a & 0xffffu;
    let ah = a >> 16u;
    let bl = b & 0xffffu;
    let bh = b >> 16u;
    let low = al * bl;
    let mid1 = ah * bl + (low >> 16u);
    let mid2 = al * bh + (mid1 & 0xffffu);
    return U64((low & 0xffffu) | (mid2 << 16u), ah * bh + (mid1 >> 16u) + (mid2 >> 16u));
}

fn less64(a: U64, b: U64) -> bool {
    return a.hi < b.hi || (a.hi == b.hi && a.lo < b.lo);
}

fn sub64(a: U64, b: U64) -> U64 {
    return U64(a.lo - b.lo, a.hi - b.hi - u32(a.lo < b.lo));
}

fn add96(a: U96, b: U96) -> U96 {
    let lo = a.lo + b.lo;
    let carry_lo = u32(lo < a.lo);
    let partial = a.mid + b.mid;
    let mid = partial + carry_lo;
    let carry_mid = u32(partial < a.mid) + u32(mid < partial);
    return U96(lo, mid, a.hi + b.hi + carry_mid);
}

fn sub96(a: U96, b: U96) -> U96 {
    return add96(add96(a, U96(~b.lo, ~b.mid, ~b.hi)), U96(1u, 0u, 0u));
}

// Any shift; 96 and more give 0.
fn shr96(a: U96, shift: u32) -> U96 {
    if shift >= 96u {
        return U96(0u, 0u, 0u);
    }
    var v = a;
    if shift >= 64u {
        v = U96(a.hi, 0u, 0u);
    } else if shift >= 32u {
        v = U96(a.mid, a.hi, 0u);
    }
    let rest = shift & 31u;
    if rest == 0u {
        return v;
    }
    let up = 32u - rest;
    return U96((v.lo >> rest) | (v.mid << up), (v.mid >> rest) | (v.hi << up), v.hi >> rest);
}

// Any shift below 96.
fn shl96(a: U96, shift: u32) -> U96 {
    var v = a;
    if shift >= 64u {
        v = U96(0u, 0u, a.lo);
    } else if shift >= 32u {
        v = U96(0u, a.lo, a.mid);
    }
    let rest = shift & 31u;
    if rest == 0u {
        return v;
    }
    let down = 32u - rest;
    return U96(v.lo << rest, (v.mid << rest) | (v.lo >> down), (v.hi << rest) | (v.mid >> down));
}

fn bits96(a: U96) -> u32 {
    if a.hi != 0u {
        return 96u - countLeadingZeros(a.hi);
    }
    if a.mid != 0u {
        return 64u - countLeadingZeros(a.mid);
    }
    return 32u - countLeadingZeros(a.lo);
}

// 21 bits each: 1,024 such limbs add up without overflowing a word.
fn limbs21_of(a: U64) -> vec3<u32> {
    return vec3(a.lo & 0x1fffffu, ((a.lo >> 21u) | (a.hi << 11u)) & 0x1fffffu, a.hi >> 10u);
}

fn from_limbs21(a: vec3<u32>) -> U64 {
    return add64(add64(U64(a.x, 0u), U64(a.y << 21u, a.y >> 11u)), U64(0u, a.z << 10u));
}

// What one element of mantissa m alone adds to the mantissa of a chunk's sum: m^2 for L2, m * 2^24 for
// L1.
fn term_of(m: u32) -> U64 {
    if NORM == NORM_ONE {
        return U64(m << 24u, m >> 8u);
    }
    return mul32(m, m);
}
