// gradient, parameter -> parameter: plain gradient descent.

//@each slot
fn element_SLOT(row: JointRow, tensor: JointTensor, i: u32, outcome: Outcome) {
    if (outcome.flags & LEFT_OUT) != 0u {
        return;
    }
    let at = row.parameter + i;
    let gradient = applied(element_bits(ROLE0[word_of(row.start + i)], row.start + i), outcome);
    let parameter = ROLE1[at];
    ROLE1[at] = moved(parameter, penalised(gradient, parameter, tensor), tensor);
}
//@end
