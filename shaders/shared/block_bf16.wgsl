// Elements of bf16 in a block. A `top` is a magnitude in the form in which the largest is found fastest.

const TOP_SHIFT: u32 = 24u;

fn tops_of(row: Row) -> Cols {
    return without_signs(row);
}

fn whole_top(top: Cols) -> Cols {
    return top & Cols(0xfffe0000u);
}

// The first top above all finite ones.
fn first_non_finite_top() -> u32 {
    return ((most >> 16u) + 1u) << 17u;
}

// Magnitudes as f32 bits.
fn magnitudes_of(row: Row) -> Cols {
    return at_top(row) & Cols(0x7fffffffu);
}

fn values_of(row: Row) -> Reals {
    return abs(bitcast<Reals>(at_top(row)));
}
