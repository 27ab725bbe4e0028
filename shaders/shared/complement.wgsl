// Powers of what is near 1.

const TWO_BITS: u32 = 0x40000000u;

// 1 - (1 - c)^n by repeated squaring of 1 - c, in which nothing cancels.
fn complement_of_power(c: u32, n: u32) -> u32 {
    var base = c;
    var result = 0u;
    for (var k = n; k > 0u; k >>= 1u) {
        if (k & 1u) == 1u {
            result = f_add(result, f_mul(base, f_distance(ONE_BITS, result)));
        }
        base = f_mul(base, f_distance(TWO_BITS, base));
    }
    return result;
}
