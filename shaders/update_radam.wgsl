// gradient, parameter, two moments -> parameter, moments: RAdam.

fn stepped(own: Own, tensor: FusedTensor, gradient: u32, outcome: Outcome) -> Own {
    let finite = is_finite(gradient) && is_finite(own.parameter);
    let g = penalised(gradient, own.parameter, tensor, finite);
    let moments = moments_of(own.first, own.second, g, finite);
    // Too few gradients have been seen for their second moment to be one to divide by.
    let plain = within(moments.x * bitcast<f32>(progress.correction), finite);
    let rectified = direction_of(moments.x, moments.y, finite);
    let direction = select(rectified, plain, progress.second_correction == 0u);
    let by = decayed(direction, own.parameter, tensor, finite);
    let parameter = moved(own.parameter, by, tensor, finite);
    return Own(parameter, bitcast<u32>(moments.x), bitcast<u32>(moments.y));
}
