// A column's mantissa from sums over its q: of L2 (sum of q^2) / 2^8 from those of h^2, h * l and l^2 with q = h * 2^14 + l, of L1
// 2^16 times the sum of q from those of its halves.
fn column_total(s: vec3<u32>) -> U64 {
    if NORM == NORM_ONE {
        return U64(s.y << 16u, s.x + (s.y >> 16u));
    }
    let upper = add64(U64(s.x << 20u, s.x >> 12u), U64(s.y << 7u, s.y >> 25u));
    return add64(upper, U64(s.z >> 8u, 0u));
}

// |elements| in units of the column's exponent, with `guard` bits below the mantissa, truncated.
fn four_aligned_to(magnitudes: vec4<u32>, exponent: u32, guard: u32) -> vec4<u32> {
    let fields = four_fields_of(magnitudes);
    let mantissas = four_mantissas_of(magnitudes, fields) << vec4(guard);
    let down = vec4(exponent) - fields;
    return select(mantissas >> (down & vec4(31u)), vec4(0u), down > vec4(31u));
}
