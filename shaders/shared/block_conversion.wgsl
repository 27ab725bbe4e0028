// q by conversion, for elements that are f32 or the upper half of one. Below this exponent of a column its unit, or the
// product of a subnormal, would leave the range in which WGSL has floating point do what is meant.
const LEAST_EXPONENT: u32 = select(28u, 32u, NORM == NORM_ONE);
const LEAST_TOP: u32 = select(LEAST_EXPONENT << TOP_SHIFT, 0u, NORM == NORM_INF);

fn exponent_of(top: Cols) -> Cols {
    return max(top >> Cols(TOP_SHIFT), Cols(1u));
}

// 2^(154 - exponent), of L1 2^(158 - exponent).
alias Unit = Reals;
fn unit_of(exponent: Cols) -> Unit {
    let field = select(281u, 285u, NORM == NORM_ONE);
    return bitcast<Reals>((Cols(field) - max(exponent, Cols(LEAST_EXPONENT))) << Cols(23u));
}

// floor(|element| * unit): the product is exact, or below 1. Whether subnormals are flushed does not matter: they, and
// what underflows, give 0.
fn q_of(row: Row, unit: Unit) -> Cols {
    return Cols(values_of(row) * unit);
}

fn bits_of_top(top: Cols) -> Cols {
    return top >> Cols(TOP_SHIFT - 23u);
}
