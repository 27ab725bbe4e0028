// dx = dy Wᵀ: rows by inputs, over outputs.

fn inner_dimension() -> u32 {
    return at.outputs;
}

fn left(row: u32, output: u32) -> f32 {
    return activations[at.derivative + row * at.outputs + output];
}

fn right(output: u32, input: u32) -> f32 {
    return parameter(at.weight + input * at.outputs + output);
}

fn store(row: u32, input: u32, value: f32) {
    activations[at.output + row * at.inputs + input] = value;
}
