// Cross-entropy of the symbol that follows each row, in nats. An invocation a row.
@compute @workgroup_size(64)
fn cross_entropy(@builtin(global_invocation_id) id: vec3u) {
    let row = at.input + id.x * VOCABULARY;
    let follows = symbol(id.x, 1u);
    var largest = activations[row];
    for (var v = 1u; v < VOCABULARY; v++) {
        largest = max(largest, activations[row + v]);
    }
    var total = 0.0;
    for (var v = 0u; v < VOCABULARY; v++) {
        total += exp(activations[row + v] - largest);
    }
    activations[at.kept + id.x] = log(total) + largest - activations[row + follows];
    // The derivative takes the place of the logits, times the loss scale: everything before it is linear in
    // it.
    let factor = progress.scale / f32(ROWS);
    for (var v = 0u; v < VOCABULARY; v++) {
        let probability = exp(activations[row + v] - largest) / total;
        activations[row + v] = (probability - f32(v == follows)) * factor;
    }
}

// The last dispatch of a micro-batch, which ends it: the losses of all rows, added up in their order by one
// invocation.
@compute @workgroup_size(1)
fn end() {
    var sum = 0.0;
    for (var row = 0u; row < ROWS; row++) {
        sum += activations[at.kept + row];
    }
    losses[batch % MICRO_BATCHES] = sum / f32(ROWS);
    batch += 1u;
}
