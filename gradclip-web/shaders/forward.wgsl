// States of one sequence, one after the other: a workgroup a sequence, four units an invocation.

@group(0) @binding(0) var<storage, read> parameters: array<vec4f>;
@group(0) @binding(1) var<storage, read> text: array<u32>;
// The crate's own count of the steps so far, the first word of `Pass::tally`: batches follow it.
@group(0) @binding(2) var<uniform> step: u32;
// The state before each symbol, and after the last one.
@group(0) @binding(3) var<storage, read_write> states: array<vec4f>;

// Two, so that one barrier a symbol is enough.
var<workgroup> shared_state: array<array<vec4f, HIDDEN / 4u>, 2>;

@compute @workgroup_size(HIDDEN / 4u)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let first = begin(step, group.x);
    var state = vec4f();
    for (var time = 0u; time <= LENGTH; time++) {
        states[state_at(group.x, time) + lane] = state;
        shared_state[time & 1u][lane] = state;
        workgroupBarrier();
        if time < LENGTH {
            let symbol = text[first + time];
            var sum = parameters[BIAS / 4u + lane] + parameters[(INPUT + symbol * HIDDEN) / 4u + lane];
            for (var k = 0u; k < HIDDEN / 4u; k++) {
                let source = shared_state[time & 1u][k];
                let row = (RECURRENT + 4u * k * HIDDEN) / 4u + lane;
                sum += source.x * parameters[row] + source.y * parameters[row + HIDDEN / 4u]
                    + source.z * parameters[row + HIDDEN / 2u] + source.w * parameters[row + 3u * HIDDEN / 4u];
            }
            // Some drivers' tanh overflows to NaN; beyond 15 it is 1 anyway.
            state = tanh(clamp(sum, vec4f(-15.0), vec4f(15.0)));
        }
    }
}
