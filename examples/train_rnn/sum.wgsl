// The gradient of the batch, and in the last place its mean loss: an invocation a place, which adds up
// what each sequence gave. Constants stand in front of this text; train_rnn.rs writes them.

@group(0) @binding(0) var<storage, read> shares: array<array<f32, LOSS + 1>>;
@group(0) @binding(1) var<storage, read_write> gradient: array<f32>;

@compute @workgroup_size(64)
fn sum(@builtin(global_invocation_id) at: vec3u) {
    if at.x > LOSS {
        return;
    }
    var total = 0.0;
    for (var s = 0u; s < BATCH; s++) {
        total += shares[s][at.x];
    }
    gradient[at.x] = total;
}
