// A parameter and its momentum: what kernels with one moment own.

struct Own {
    parameter: u32,
    momentum: u32,
}

//@each slot
fn own_SLOT(row: FusedRow, i: u32) -> Own {
    return Own(parameter_SLOT(row, i), OPERAND2[row.moment + i]);
}

fn put_SLOT(row: FusedRow, i: u32, own: Own) {
    put_parameter_SLOT(row, i, own.parameter);
    OPERAND2[row.moment + i] = own.momentum;
}
//@end
