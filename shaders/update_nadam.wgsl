// gradient, parameter, two moments -> parameter, moments: NAdam.

// The gradient's part and the first moment's, which are corrected apart.
fn ahead_of(first: f32, g: f32, finite: bool) -> f32 {
    let remembered = within(first * bitcast<f32>(progress.correction), finite);
    return within(remembered + bitcast<f32>(progress.gradient_correction) * g, finite);
}

fn stepped(own: Own, tensor: FusedTensor, gradient: u32, outcome: Outcome) -> Own {
    let finite = is_finite(gradient) && is_finite(own.parameter);
    let g = penalised(gradient, own.parameter, tensor, finite);
    let moments = moments_of(own.first, own.second, g, finite);
    let ahead = ahead_of(moments.x, g, finite);
    let size = size_of(moments.y, finite);
    let direction = quotient_of(ahead, size, ahead == 0.0 && size == 0.0, finite);
    let by = decayed(direction, own.parameter, tensor, finite);
    let parameter = moved(own.parameter, by, tensor, finite);
    return Own(parameter, bitcast<u32>(moments.x), bitcast<u32>(moments.y));
}
