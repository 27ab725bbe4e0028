// gradient, parameter, momentum -> parameter, momentum: gradient descent with momentum.

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

fn stepped(own: Own, tensor: FusedTensor, gradient: u32, outcome: Outcome) -> Own {
    let finite = is_finite(gradient) && is_finite(own.parameter);
    let g = penalised(gradient, own.parameter, tensor, finite);
    let kept = bitcast<f32>(hyper.decay) * bitcast<f32>(own.momentum);
    let momentum = within(kept + bitcast<f32>(progress.share) * g, finite);
    let nesterov = within(g + bitcast<f32>(hyper.decay) * momentum, finite);
    let direction = select(momentum, nesterov, (hyper.flags & NESTEROV) != 0u);
    return Own(moved(own.parameter, direction, tensor, finite), bitcast<u32>(momentum));
}
