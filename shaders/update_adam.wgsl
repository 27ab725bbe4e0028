// gradient, parameter, two moments -> parameter, moments: Adam and AdamW.

fn stepped(own: Own, tensor: FusedTensor, gradient: u32, outcome: Outcome) -> Own {
    let finite = is_finite(gradient) && is_finite(own.parameter);
    let g = penalised(gradient, own.parameter, tensor, finite);
    let moments = moments_of(own.first, own.second, g, finite);
    let parameter = moved_along(moments, own.parameter, tensor, finite);
    return Own(parameter, bitcast<u32>(moments.x), bitcast<u32>(moments.y));
}
