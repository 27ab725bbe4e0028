// gradient, parameter -> what the ratio of LARS follows from.

fn update_of(own: Own, tensor: FusedTensor, gradient: u32) -> f32 {
    if (hyper.flags & NORMS_APART) != 0u {
        return bitcast<f32>(gradient);
    }
    return penalised(gradient, own.parameter, tensor, is_finite(gradient) && is_finite(own.parameter));
}
