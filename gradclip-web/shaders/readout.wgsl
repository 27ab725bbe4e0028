// Softmax and cross-entropy after one symbol, and the loss by logits and by the state: a workgroup a symbol, four logits
// and four units an invocation.

@group(0) @binding(0) var<storage, read> parameters: array<vec4f>;
@group(0) @binding(1) var<storage, read> text: array<u32>;
@group(0) @binding(2) var<uniform> step: u32;
@group(0) @binding(3) var<storage, read> states: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> by_logits: array<vec4f>;
@group(0) @binding(5) var<storage, read_write> by_states: array<vec4f>;
@group(0) @binding(6) var<storage, read_write> losses: array<f32>;

const TERMS: f32 = f32(BATCH * LENGTH);
var<workgroup> logits: array<vec4f, SYMBOLS / 4u>;
var<workgroup> shares: array<vec4f, SYMBOLS / 4u>;

@compute @workgroup_size(LANES)
fn readout(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let time = group.x;
    let sequence = group.y;
    let answer = text[begin(step, sequence) + time + 1u];
    if lane < SYMBOLS / 4u {
        var sum = parameters[READOUT_BIAS / 4u + lane];
        for (var k = 0u; k < HIDDEN / 4u; k++) {
            let source = states[state_at(sequence, time + 1u) + k];
            let row = (READOUT + 4u * k * SYMBOLS) / 4u + lane;
            sum += source.x * parameters[row] + source.y * parameters[row + SYMBOLS / 4u]
                + source.z * parameters[row + SYMBOLS / 2u] + source.w * parameters[row + 3u * SYMBOLS / 4u];
        }
        logits[lane] = sum;
    }
    workgroupBarrier();

    var top = logits[0];
    for (var v = 1u; v < SYMBOLS / 4u; v++) {
        top = max(top, logits[v]);
    }
    let most = max(max(top.x, top.y), max(top.z, top.w));
    var total = 0.0;
    for (var v = 0u; v < SYMBOLS / 4u; v++) {
        total += dot(exp(logits[v] - most), vec4f(1.0));
    }
    if lane < SYMBOLS / 4u {
        let own = 4u * lane + vec4u(0u, 1u, 2u, 3u);
        let share = (exp(logits[lane] - most) / total - vec4f(own == vec4u(answer))) / TERMS;
        shares[lane] = share;
        by_logits[logit_at(sequence, time) + lane] = share;
    }
    if lane == 0u {
        losses[sequence * LENGTH + time] = (log(total) + most - logits[answer / 4u][answer % 4u]) / TERMS;
    }
    workgroupBarrier();

    if lane < HIDDEN / 4u {
        var by_state = vec4f();
        for (var v = 0u; v < SYMBOLS / 4u; v++) {
            for (var u = 0u; u < 4u; u++) {
                by_state[u] += dot(parameters[(READOUT + (4u * lane + u) * SYMBOLS) / 4u + v], shares[v]);
            }
        }
        by_states[delta_at(sequence, time) + lane] = by_state;
    }
}
