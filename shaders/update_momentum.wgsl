// gradient, parameter, momentum -> parameter, momentum: gradient descent with momentum.

//@each slot
fn element_SLOT(row: JointRow, tensor: JointTensor, i: u32, gradient: u32, outcome: Outcome) {
    let at = row.parameter + i;
    let parameter = ROLE1[at];
    let finite = is_finite(gradient) && is_finite(parameter);
    let g = penalised(gradient, parameter, tensor, finite);
    let kept = bitcast<f32>(hyper.decay) * bitcast<f32>(ROLE2[row.moment + i]);
    let momentum = within(kept + bitcast<f32>(progress.share) * g, finite);
    ROLE2[row.moment + i] = bitcast<u32>(momentum);
    let nesterov = within(g + bitcast<f32>(hyper.decay) * momentum, finite);
    ROLE1[at] = moved(parameter, select(momentum, nesterov, (hyper.flags & NESTEROV) != 0u), tensor, finite);
}
//@end
