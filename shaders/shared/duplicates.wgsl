// The sum of duplicates, to the bit whatever their order: magnitudes in units of 2^-32 of the last place of the largest one, cut
// towards 0, added as integers and rounded once. src/cpu/coalesce/sum.rs is the twin.

// Values of one element so far.
struct Values {
    // The largest magnitudes of those that are not negative, and of those that are.
    top: vec2<u32>,
    // The bits that all have.
    in_all: u32,
}

const NO_VALUES: Values = Values(vec2(0u, 0u), 0xffffffffu);

fn with_value(values: Values, bits: u32) -> Values {
    let magnitude = bits & 0x7fffffffu;
    let negative = (bits >> 31u) == 1u;
    let own = vec2(select(magnitude, 0u, negative), select(0u, magnitude, negative));
    return Values(max(values.top, own), values.in_all & bits);
}

fn is_sum_finite(values: Values) -> bool {
    return max(values.top.x, values.top.y) < INFINITY_BITS;
}

// The exponent field of the largest.
fn field_of_sum(values: Values) -> u32 {
    return field_of(max(values.top.x, values.top.y));
}

// An infinity; NaN where there is one, or both infinities.
fn sum_not_finite(values: Values) -> u32 {
    let nan = max(values.top.x, values.top.y) > INFINITY_BITS || values.top.x == values.top.y;
    let infinity = select(INFINITY_BITS, INFINITY_BITS | 0x80000000u, values.top.y == INFINITY_BITS);
    return select(infinity, QUIET_NAN_BITS, nan);
}

// In two's complement: the last 32 bits are the units of 2^-32, the first 32 hold the sum of any number.
fn with_term(sum: U96, bits: u32, field: u32) -> U96 {
    let magnitude = bits & 0x7fffffffu;
    let own = field_of(magnitude);
    let units = shr64(U64(0u, mantissa_of(magnitude, own)), field - own);
    let sign = select(0u, 0xffffffffu, (bits >> 31u) == 1u);
    let moved = add96(sum, U96(units.lo ^ sign, units.hi ^ sign, sign));
    return add96(moved, U96(sign & 1u, 0u, 0u));
}

// `field` is that of the largest magnitude.
fn rounded_sum(sum: U96, field: u32, values: Values) -> u32 {
    if (sum.lo | sum.mid | sum.hi) == 0u {
        // Zeros add up to -0 where all of them are that.
        return values.in_all & 0x80000000u;
    }
    let negative = (sum.hi >> 31u) == 1u;
    var size = sum;
    if negative {
        size = sub96(U96(0u, 0u, 0u), sum);
    }
    let real = normalised96(size, i32(field) - 182);
    return to_f32(rounded(real, F32_MIN_EXPONENT)) | select(0u, 0x80000000u, negative);
}
