// gradient, parameter, two moments -> parameter, moments: Adam and AdamW.

fn direction_of(first: f32, second: f32) -> f32 {
    let correction = bitcast<f32>(progress.second_correction);
    let eps = bitcast<f32>(hyper.eps) * select(1.0, correction, (hyper.flags & EPS_HAT) != 0u);
    let size = sqrt(second) * correction + eps;
    // 0 / 0: nothing has ever moved this element.
    return select(first * bitcast<f32>(progress.correction) / size, 0.0, first == 0.0 && size == 0.0);
}

//@each slot
fn element_SLOT(row: JointRow, tensor: JointTensor, i: u32, gradient: u32, outcome: Outcome) {
    let at = row.parameter + i;
    let parameter = ROLE1[at];
    let g = penalised(gradient, parameter, tensor);
    let kept = bitcast<f32>(hyper.decay) * bitcast<f32>(ROLE2[row.moment + i]);
    let first = kept + bitcast<f32>(progress.share) * g;
    let second_kept = bitcast<f32>(hyper.second_decay) * bitcast<f32>(ROLE3[row.second_moment + i]);
    let second = second_kept + bitcast<f32>(hyper.second_share) * g * g;
    ROLE2[row.moment + i] = bitcast<u32>(first);
    ROLE3[row.second_moment + i] = bitcast<u32>(second);
    var direction = direction_of(first, second);
    if (hyper.flags & DECOUPLED) != 0u {
        direction += bitcast<f32>(tensor.weight_decay) * bitcast<f32>(parameter);
    }
    ROLE1[at] = moved(parameter, direction, tensor);
}
//@end
