// gradient, parameter, two moments -> what limits the update of Adam, AdamW, LAMB and StableAdamW.

fn update_of(own: Own, tensor: FusedTensor, gradient: u32) -> f32 {
    let finite = is_finite(gradient) && is_finite(own.parameter);
    let g = penalised(gradient, own.parameter, tensor, finite);
    let moments = moments_of(own.first, own.second, g, finite);
    if (hyper.flags & LIMITS_RATE) != 0u {
        let root = within(sqrt(moments.y) * bitcast<f32>(progress.second_correction), finite);
        let size = max(root, bitcast<f32>(hyper.eps));
        return quotient_of(g, size, g == 0.0 && size == 0.0, finite);
    }
    let update = direction_of(moments.x, moments.y, finite);
    if (hyper.flags & LIMITS_RMS) != 0u {
        return update;
    }
    return decayed(update, own.parameter, tensor, finite);
}
