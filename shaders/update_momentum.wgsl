// gradient, parameter, momentum -> parameter, momentum: gradient descent with momentum.

//@each slot
fn element_SLOT(row: JointRow, tensor: JointTensor, i: u32, gradient: u32, outcome: Outcome) {
    let at = row.parameter + i;
    let parameter = ROLE1[at];
    let g = penalised(gradient, parameter, tensor);
    let kept = bitcast<f32>(hyper.decay) * bitcast<f32>(ROLE2[row.moment + i]);
    let momentum = kept + bitcast<f32>(progress.share) * g;
    ROLE2[row.moment + i] = bitcast<u32>(momentum);
    let nesterov = g + bitcast<f32>(hyper.decay) * momentum;
    ROLE1[at] = moved(parameter, select(momentum, nesterov, (hyper.flags & NESTEROV) != 0u), tensor);
}
//@end
