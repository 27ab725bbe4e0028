// The gradient of the batch, and behind it its mean loss: four neighbouring elements an invocation, which goes through
// all symbols of all sequences in their order, so that a run is the same every time.

@group(0) @binding(0) var<storage, read> text: array<u32>;
@group(0) @binding(1) var<uniform> step: u32;
@group(0) @binding(2) var<storage, read> states: array<vec4f>;
@group(0) @binding(3) var<storage, read> by_logits: array<vec4f>;
@group(0) @binding(4) var<storage, read> deltas: array<vec4f>;
@group(0) @binding(5) var<storage, read> losses: array<f32>;
@group(0) @binding(6) var<storage, read_write> gradient: array<vec4f>;

// One unit of a state.
fn unit(sequence: u32, time: u32, k: u32) -> f32 {
    return states[state_at(sequence, time) + k / 4u][k % 4u];
}

@compute @workgroup_size(64)
fn sum(@builtin(global_invocation_id) at: vec3u) {
    let element = 4u * at.x;
    if element > LOSS {
        return;
    }
    var total = vec4f();
    for (var sequence = 0u; sequence < BATCH; sequence++) {
        let first = begin(step, sequence);
        for (var time = 0u; time < LENGTH; time++) {
            let delta = delta_at(sequence, time);
            let logit = logit_at(sequence, time);
            if element < RECURRENT {
                if text[first + time] == (element - INPUT) / HIDDEN {
                    total += deltas[delta + element % HIDDEN / 4u];
                }
            } else if element < BIAS {
                let k = (element - RECURRENT) / HIDDEN;
                total += unit(sequence, time, k) * deltas[delta + (element - RECURRENT) % HIDDEN / 4u];
            } else if element < READOUT {
                total += deltas[delta + (element - BIAS) / 4u];
            } else if element < READOUT_BIAS {
                let k = (element - READOUT) / SYMBOLS;
                total += unit(sequence, time + 1u, k) * by_logits[logit + (element - READOUT) % SYMBOLS / 4u];
            } else if element < LOSS {
                total += by_logits[logit + (element - READOUT_BIAS) / 4u];
            } else {
                total.x += losses[sequence * LENGTH + time];
            }
        }
    }
    gradient[at.x] = total;
}
