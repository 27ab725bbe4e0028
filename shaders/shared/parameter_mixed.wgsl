// Parameters of 16 bits with masters of f32.

// A master that nothing was written to is its parameter. One of 0 that was has a parameter of 0, so that it stays what it is.
//@each slot
fn parameter_SLOT(row: FusedRow, i: u32) -> u32 {
    let master = OPERAND1[row.parameter + i];
    if master != 0u {
        return master;
    }
    return half_at_SLOT(row, i);
}

fn put_parameter_SLOT(row: FusedRow, i: u32, bits: u32) {
    OPERAND1[row.parameter + i] = bits;
}
//@end

fn halves_of(row: FusedRow, tensor: FusedTensor, i: u32, low: u32, high: u32) -> vec2<u32> {
    return vec2(parameter_as_half(low), parameter_as_half(high));
}
