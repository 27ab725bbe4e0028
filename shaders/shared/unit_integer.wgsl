// At most COLUMNS elements: each is a column of its own.
fn sum_of_singles(row: UnitRow, origin: u32, exponent: u32) -> U64 {
    var total = U64(0u, 0u);
    for (var i = 0u; i < row.len; i++) {
        total = with_single(total, finite_magnitude(row, origin, i), exponent);
    }
    return total;
}

// |element| in units of the column's exponent, with `guard` bits below the mantissa, truncated.
fn aligned_to(bits: u32, exponent: u32, guard: u32) -> u32 {
    let field = field_of(bits);
    let mantissa = mantissa_of(bits, field) << guard;
    let down = exponent - field;
    return select(mantissa >> (down & 31u), 0u, down > 31u);
}

fn sum_of_column(row: UnitRow, origin: u32, column: u32, chunk_exponent: u32) -> U64 {
    var top = 0u;
    for (var i = column; i < row.len; i += COLUMNS) {
        top = max(top, finite_magnitude(row, origin, i));
    }
    let exponent = field_of(top);
    var s = vec3<u32>(0u);
    for (var i = column; i < row.len; i += COLUMNS) {
        let bits = finite_magnitude(row, origin, i);
        if NORM == NORM_ONE {
            let q = aligned_to(bits, exponent, 8u);
            s += vec3(q >> 16u, q & 0xffffu, 0u);
        } else {
            let q = aligned_to(bits, exponent, 4u);
            let h = q >> 14u;
            let l = q & 0x3fffu;
            s += vec3(h * h, h * l, l * l);
        }
    }
    return shr64(column_total(s), ALIGN * (chunk_exponent - exponent));
}

fn integer_sum(row: UnitRow, origin: u32, exponent: u32) -> U64 {
    if row.len <= COLUMNS {
        return sum_of_singles(row, origin, exponent);
    }
    var total = U64(0u, 0u);
    for (var column = 0u; column < COLUMNS; column++) {
        total = add64(total, sum_of_column(row, origin, column, exponent));
    }
    return total;
}

fn partial_of(row: UnitRow, origin: u32, top: u32, non_finite: u32) -> Partial {
    if NORM == NORM_INF {
        return Partial(0u, 0u, top, non_finite);
    }
    let exponent = field_of(top);
    let total = integer_sum(row, origin, exponent);
    return Partial(total.lo, total.hi, exponent, non_finite);
}
