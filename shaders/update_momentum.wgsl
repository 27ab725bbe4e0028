// gradient, parameter, momentum -> parameter, momentum: gradient descent with momentum.

fn stepped(own: Own, tensor: FusedTensor, gradient: u32, outcome: Outcome) -> Own {
    let finite = is_finite(gradient) && is_finite(own.parameter);
    let g = penalised(gradient, own.parameter, tensor, finite);
    let kept = bitcast<f32>(hyper.decay) * bitcast<f32>(own.momentum);
    let momentum = within(kept + bitcast<f32>(progress.share) * g, finite);
    let nesterov = within(g + bitcast<f32>(hyper.decay) * momentum, finite);
    let direction = select(momentum, nesterov, (hyper.flags & NESTEROV) != 0u);
    return Own(moved(own.parameter, direction, tensor, finite), bitcast<u32>(momentum));
}
