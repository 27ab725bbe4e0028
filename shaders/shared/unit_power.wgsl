fn partial_of(row: UnitRow, origin: u32, top: u32, non_finite: u32) -> Partial {
    var powers = 0.0;
    for (var i = 0u; i < row.len; i++) {
        powers += power_of_ratio(finite_magnitude(row, origin, i), top);
    }
    return Partial(bitcast<u32>(powers), 0u, top, non_finite);
}
