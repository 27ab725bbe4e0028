// Elements of f16 in a block, by integer code alone: a driver may flush subnormal halves. A `top` is a magnitude in the form
// in which the largest is found fastest.

const TOP_SHIFT: u32 = 27u;
// A column of nothing but subnormals is aligned to one of them.
const LEAST_TOP: u32 = select(1u << TOP_SHIFT, 0u, NORM == NORM_INF);

fn tops_of(row: Row) -> Cols {
    return without_signs(row);
}

fn whole_top(top: Cols) -> Cols {
    return top & Cols(0xfffe0000u);
}

// The first top above all finite ones. `most` is at least about 1.
fn first_non_finite_top() -> u32 {
    return (min((most - (112u << 23u)) >> 13u, 0x7bffu) + 1u) << 17u;
}

// That of the f32: 112 more than that of a normal half.
fn exponent_of(top: Cols) -> Cols {
    return select((top >> Cols(TOP_SHIFT)) + Cols(112u), Cols(1u), top == Cols(0u));
}

// The largest field of a column, at least 1, and 1 less that at the place of the field.
struct Unit {
    field: Cols,
    less: Cols,
}

fn unit_of(exponent: Cols) -> Unit {
    let field = max(exponent, Cols(113u)) - Cols(112u);
    return Unit(field, (Cols(1u) - field) << Cols(TOP_SHIFT));
}

// q = (mantissa << 17) >> (largest field - own field), a subnormal's field being 1; of L1 four bits further up. The mantissa
// is the top without its field less 1.
fn q_of(row: Row, unit: Unit) -> Cols {
    let top = whole_top(without_signs(row));
    let down = unit.field - max(top >> Cols(TOP_SHIFT), Cols(1u));
    let mantissa = (down << Cols(TOP_SHIFT)) + (top + unit.less);
    return (mantissa << Cols(select(0u, 4u, NORM == NORM_ONE))) >> (down & Cols(31u));
}

// Magnitudes as f32 bits.
fn magnitudes_of(row: Row) -> Cols {
    return bits_of_top(whole_top(without_signs(row)));
}

fn bits_of_top(top: Cols) -> Cols {
    return f32_bits_of(top >> Cols(17u));
}
