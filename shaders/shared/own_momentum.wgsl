// A parameter and its momentum: what kernels with one moment own.

struct Own {
    parameter: u32,
    momentum: u32,
}

//@each slot
fn own_SLOT(row: FusedRow, i: u32) -> Own {
    return Own(OPERAND1[row.parameter + i], OPERAND2[row.moment + i]);
}

fn put_SLOT(row: FusedRow, i: u32, own: Own) {
    OPERAND1[row.parameter + i] = own.parameter;
    OPERAND2[row.moment + i] = own.momentum;
}
//@end
