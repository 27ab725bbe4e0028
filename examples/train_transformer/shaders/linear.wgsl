// y = x W, and a residual: rows by outputs, over inputs.

fn inner_dimension() -> u32 {
    return at.inputs;
}

fn left(row: u32, input: u32) -> f32 {
    return activations[at.input + row * at.inputs + input];
}

fn right(input: u32, output: u32) -> f32 {
    return parameter(at.weight + input * at.outputs + output);
}

fn store(row: u32, output: u32, value: f32) {
    let element = row * at.outputs + output;
    activations[at.output + element] = value + residual(element);
}
