// gradient, parameter, momentum -> parameter, momentum: Lion.

fn mean_of(decay: u32, share: u32, momentum: u32, g: f32, finite: bool) -> f32 {
    return within(bitcast<f32>(decay) * bitcast<f32>(momentum) + bitcast<f32>(share) * g, finite);
}

fn stepped(own: Own, tensor: FusedTensor, gradient: u32, outcome: Outcome) -> Own {
    let parameter = own.parameter;
    let finite = is_finite(gradient) && is_finite(parameter);
    let g = penalised(gradient, parameter, tensor, finite);
    let mean = bitcast<u32>(mean_of(hyper.decay, hyper.share, own.momentum, g, finite));
    let momentum = mean_of(hyper.second_decay, hyper.second_share, own.momentum, g, finite);
    // 1 with the sign of what is not 0; NaN stays.
    let magnitude = mean & 0x7fffffffu;
    let one = (mean & 0x80000000u) | 0x3f800000u;
    let sign = bitcast<f32>(select(one, mean, magnitude == 0u || magnitude > 0x7f800000u));
    let direction = decayed(sign, parameter, tensor, finite);
    return Own(moved(parameter, direction, tensor, finite), bitcast<u32>(momentum));
}
