// gradient, parameter -> parameter: plain gradient descent.

//@each slot
fn element_SLOT(row: JointRow, tensor: JointTensor, i: u32, gradient: u32, outcome: Outcome) {
    let at = row.parameter + i;
    let parameter = ROLE1[at];
    let finite = is_finite(gradient) && is_finite(parameter);
    ROLE1[at] = moved(parameter, penalised(gradient, parameter, tensor, finite), tensor, finite);
}
//@end
