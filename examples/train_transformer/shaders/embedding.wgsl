// x = embedding of the symbol + embedding of its position.

@compute @workgroup_size(WIDTH)
fn embed(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) column: u32) {
    let row = group.x;
    let of_symbol = parameter(EMBEDDING + symbol(row, 0u) * WIDTH + column);
    let of_position = parameter(POSITION + (row % CONTEXT) * WIDTH + column);
    activations[at.output + row * WIDTH + column] = of_symbol + of_position;
}

// A workgroup a symbol of the vocabulary, which looks for it in all sequences: sums in the order of rows,
// without atomics, so that every run has the same bits.
@compute @workgroup_size(WIDTH)
fn embed_by_symbol(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) column: u32) {
    var sum = 0.0;
    for (var s = 0u; s < BATCH; s++) {
        let begin = sequence(s);
        for (var t = 0u; t < CONTEXT; t++) {
            if text[begin + t] == group.x {
                sum += activations[at.derivative + (s * CONTEXT + t) * WIDTH + column];
            }
        }
    }
    gradients[EMBEDDING + group.x * WIDTH + column] = sum;
}

@compute @workgroup_size(WIDTH)
fn embed_by_position(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) column: u32) {
    var sum = 0.0;
    for (var s = 0u; s < BATCH; s++) {
        sum += activations[at.derivative + (s * CONTEXT + group.x) * WIDTH + column];
    }
    gradients[POSITION + group.x * WIDTH + column] = sum;
}
