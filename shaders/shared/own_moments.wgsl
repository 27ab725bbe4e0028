// A parameter and two moments: what kernels of Adam's family own.

struct Own {
    parameter: u32,
    first: u32,
    second: u32,
}

//@each slot
fn own_SLOT(row: FusedRow, i: u32) -> Own {
    return Own(parameter_SLOT(row, i), OPERAND2[row.moment + i], OPERAND3[row.second_moment + i]);
}

fn put_SLOT(row: FusedRow, i: u32, own: Own) {
    put_parameter_SLOT(row, i, own.parameter);
    OPERAND2[row.moment + i] = own.first;
    OPERAND3[row.second_moment + i] = own.second;
}
//@end
