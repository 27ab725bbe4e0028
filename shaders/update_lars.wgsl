// gradient, parameter, momentum -> parameter, momentum: LARS.

fn stepped(own: Own, tensor: FusedTensor, gradient: u32, outcome: Outcome) -> Own {
    let finite = is_finite(gradient) && is_finite(own.parameter);
    let rate = rate_of(tensor) * bitcast<f32>(tensor.ratio);
    let along = within(rate * penalised(gradient, own.parameter, tensor, finite), finite);
    let decay = bitcast<f32>(hyper.decay);
    let momentum = within(decay * bitcast<f32>(own.momentum) + along, finite);
    let ahead = within(decay * momentum + along, finite);
    let by = select(momentum, ahead, (hyper.flags & NESTEROV) != 0u);
    return Own(moved_by(own.parameter, by, finite), bitcast<u32>(momentum));
}
