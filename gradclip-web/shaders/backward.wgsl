// The loss by what goes into each tanh of one sequence, from the last symbol to the first: a workgroup a sequence, four
// units an invocation.

@group(0) @binding(0) var<storage, read> parameters: array<vec4f>;
@group(0) @binding(1) var<storage, read> states: array<vec4f>;
// The loss by each state through its own logits alone, which this overwrites.
@group(0) @binding(2) var<storage, read_write> deltas: array<vec4f>;

// Two, so that one barrier a symbol is enough.
var<workgroup> shared_delta: array<array<vec4f, HIDDEN / 4u>, 2>;

@compute @workgroup_size(HIDDEN / 4u)
fn backward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    var later = vec4f();
    for (var time = LENGTH; time > 0u; time--) {
        let state = states[state_at(group.x, time) + lane];
        let at = delta_at(group.x, time - 1u) + lane;
        let delta = (deltas[at] + later) * (1.0 - state * state);
        deltas[at] = delta;
        shared_delta[time & 1u][lane] = delta;
        workgroupBarrier();
        later = vec4f();
        for (var k = 0u; k < HIDDEN / 4u; k++) {
            for (var u = 0u; u < 4u; u++) {
                let row = (RECURRENT + (4u * lane + u) * HIDDEN) / 4u;
                later[u] += dot(parameters[row + k], shared_delta[time & 1u][k]);
            }
        }
    }
}
