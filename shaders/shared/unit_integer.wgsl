fn partial_of(row: UnitRow, origin: u32, top: u32, non_finite: u32) -> Partial {
    if NORM == NORM_INF {
        return Partial(0u, 0u, top, non_finite);
    }
    let exponent = field_or_one(top);
    let total = integer_sum(row, origin, exponent);
    return Partial(total.lo, total.hi, exponent, non_finite);
}
