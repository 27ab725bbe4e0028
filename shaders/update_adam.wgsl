// gradient, parameter, two moments -> parameter, moments: Adam and AdamW.

struct Own {
    parameter: u32,
    first: u32,
    second: u32,
}

//@each slot
fn own_SLOT(row: FusedRow, i: u32) -> Own {
    return Own(OPERAND1[row.parameter + i], OPERAND2[row.moment + i], OPERAND3[row.second_moment + i]);
}

fn put_SLOT(row: FusedRow, i: u32, own: Own) {
    OPERAND1[row.parameter + i] = own.parameter;
    OPERAND2[row.moment + i] = own.first;
    OPERAND3[row.second_moment + i] = own.second;
}
//@end

fn direction_of(first: f32, second: f32, finite: bool) -> f32 {
    let correction = bitcast<f32>(progress.second_correction);
    let eps = bitcast<f32>(hyper.eps) * select(1.0, correction, (hyper.flags & EPS_HAT) != 0u);
    let size = within(sqrt(second) * correction + eps, finite);
    let corrected = within(first * bitcast<f32>(progress.correction), finite);
    // 0 / 0: nothing has ever moved this element.
    return select(within(corrected / size, finite), 0.0, first == 0.0 && size == 0.0);
}

fn stepped(own: Own, tensor: FusedTensor, gradient: u32, outcome: Outcome) -> Own {
    let parameter = own.parameter;
    let finite = is_finite(gradient) && is_finite(parameter);
    let g = penalised(gradient, parameter, tensor, finite);
    let kept = bitcast<f32>(hyper.decay) * bitcast<f32>(own.first);
    let first = within(kept + bitcast<f32>(progress.share) * g, finite);
    let second_kept = bitcast<f32>(hyper.second_decay) * bitcast<f32>(own.second);
    let second = within(second_kept + bitcast<f32>(hyper.second_share) * g * g, finite);
    var direction = direction_of(first, second, finite);
    if (hyper.flags & DECOUPLED) != 0u {
        direction = within(direction + bitcast<f32>(tensor.weight_decay) * bitcast<f32>(parameter), finite);
    }
    return Own(moved(parameter, direction, tensor, finite), bitcast<u32>(first), bitcast<u32>(second));
}
