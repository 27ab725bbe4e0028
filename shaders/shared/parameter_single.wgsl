// Parameters of f32.

//@each slot
fn parameter_SLOT(row: FusedRow, i: u32) -> u32 {
    return OPERAND1[row.parameter + i];
}

fn put_parameter_SLOT(row: FusedRow, i: u32, bits: u32) {
    OPERAND1[row.parameter + i] = bits;
}
//@end
