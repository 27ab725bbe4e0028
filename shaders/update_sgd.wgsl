// gradient, parameter -> parameter: plain gradient descent.

struct Own {
    parameter: u32,
}

//@each slot
fn own_SLOT(row: FusedRow, i: u32) -> Own {
    return Own(parameter_SLOT(row, i));
}

fn put_SLOT(row: FusedRow, i: u32, own: Own) {
    put_parameter_SLOT(row, i, own.parameter);
}
//@end

fn stepped(own: Own, tensor: FusedTensor, gradient: u32, outcome: Outcome) -> Own {
    let finite = is_finite(gradient) && is_finite(own.parameter);
    return Own(moved(own.parameter, penalised(gradient, own.parameter, tensor, finite), tensor, finite));
}
