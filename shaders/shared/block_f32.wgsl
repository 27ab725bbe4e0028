// Elements of f32 in a block. A `top` is a magnitude in the form in which the largest is found fastest.

const TOP_SHIFT: u32 = 23u;

fn tops_of(row: Row) -> Cols {
    return row & Cols(0x7fffffffu);
}

fn whole_top(top: Cols) -> Cols {
    return top;
}

// The first top above all finite ones.
fn first_non_finite_top() -> u32 {
    return most + 1u;
}

// Magnitudes as f32 bits.
fn magnitudes_of(row: Row) -> Cols {
    return row & Cols(0x7fffffffu);
}

fn values_of(row: Row) -> Reals {
    return abs(bitcast<Reals>(row));
}
