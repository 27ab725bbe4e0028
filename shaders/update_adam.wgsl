// gradient, parameter, two moments -> parameter, moments: Adam and AdamW.

fn direction_of(first: f32, second: f32, finite: bool) -> f32 {
    let correction = bitcast<f32>(progress.second_correction);
    let eps = bitcast<f32>(hyper.eps) * select(1.0, correction, (hyper.flags & EPS_HAT) != 0u);
    let size = within(sqrt(second) * correction + eps, finite);
    let corrected = within(first * bitcast<f32>(progress.correction), finite);
    // 0 / 0: nothing has ever moved this element.
    return select(within(corrected / size, finite), 0.0, first == 0.0 && size == 0.0);
}

//@each slot
fn element_SLOT(row: JointRow, tensor: JointTensor, i: u32, gradient: u32, outcome: Outcome) {
    let at = row.parameter + i;
    let parameter = ROLE1[at];
    let finite = is_finite(gradient) && is_finite(parameter);
    let g = penalised(gradient, parameter, tensor, finite);
    let kept = bitcast<f32>(hyper.decay) * bitcast<f32>(ROLE2[row.moment + i]);
    let first = within(kept + bitcast<f32>(progress.share) * g, finite);
    let second_kept = bitcast<f32>(hyper.second_decay) * bitcast<f32>(ROLE3[row.second_moment + i]);
    let second = within(second_kept + bitcast<f32>(hyper.second_share) * g * g, finite);
    ROLE2[row.moment + i] = bitcast<u32>(first);
    ROLE3[row.second_moment + i] = bitcast<u32>(second);
    var direction = direction_of(first, second, finite);
    if (hyper.flags & DECOUPLED) != 0u {
        direction = within(direction + bitcast<f32>(tensor.weight_decay) * bitcast<f32>(parameter), finite);
    }
    ROLE1[at] = moved(parameter, direction, tensor, finite);
}
//@end
