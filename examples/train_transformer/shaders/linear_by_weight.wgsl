// dW = xᵀ dy: inputs by outputs, over rows.

fn inner_dimension() -> u32 {
    return ROWS;
}

fn left(input: u32, row: u32) -> f32 {
    return activations[at.input + row * at.inputs + input];
}

fn right(row: u32, output: u32) -> f32 {
    return activations[at.derivative + row * at.outputs + output];
}

fn store(input: u32, output: u32, value: f32) {
    gradients[at.weight + input * at.outputs + output] = value;
}
