// gradient, parameter, two moments -> parameter, moments: Adam and AdamW.

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

fn stepped(own: Own, tensor: FusedTensor, gradient: u32, outcome: Outcome) -> Own {
    let finite = is_finite(gradient) && is_finite(own.parameter);
    let g = penalised(gradient, own.parameter, tensor, finite);
    let moments = moments_of(own.first, own.second, g, finite);
    let parameter = moved_along(moments, own.parameter, tensor, finite);
    return Own(parameter, bitcast<u32>(moments.x), bitcast<u32>(moments.y));
}
