// One sequence forwards and back through time: a workgroup a sequence, four hidden units an invocation,
// which so uses four times what it reads of the others. Reading is most of what software drivers do.
// Constants stand in front of this text; train_rnn.rs writes them.

@group(0) @binding(0) var<storage, read> parameters: array<f32>;
// What each sequence adds to the gradient, and in the last place its loss.
@group(0) @binding(1) var<storage, read_write> shares: array<array<f32, LOSS + 1>>;
// The crate's own count of the steps so far, the first word of `Pass::tally`: batches follow it.
@group(0) @binding(2) var<uniform> step: u32;

// The state before each symbol, and after the last one.
var<workgroup> states: array<array<f32, HIDDEN>, LENGTH + 1>;
// The loss by what goes into each tanh. Two, so that one barrier a symbol is enough.
var<workgroup> deltas: array<array<f32, HIDDEN>, 2>;
var<workgroup> logits: array<f32, CLASSES>;

struct Sequence {
    key: u32,
    first_at: u32,
    second_at: u32,
    answer: u32,
}

// PCG's output function (O'Neill 2014) as a hash.
fn hash(x: u32) -> u32 {
    let state = x * 747796405u + 2891336453u;
    let word = ((state >> ((state >> 28u) + 4u)) ^ state) * 277803737u;
    return (word >> 22u) ^ word;
}

// The temporal order task: A or B somewhere in the second tenth, A or B somewhere in the fifth tenth,
// distractors elsewhere. The answer is which came first and which second.
fn sequence(index: u32) -> Sequence {
    let key = hash(hash(hash(SEED) + step) + index);
    let tenth = LENGTH / 10u;
    let first_at = tenth + hash(key ^ 0x10000u) % tenth;
    let second_at = 4u * tenth + hash(key ^ 0x20000u) % tenth;
    return Sequence(key, first_at, second_at, hash(key ^ 0x30000u) % CLASSES);
}

// 0 and 1 are A and B.
fn symbol(sequence: Sequence, at: u32) -> u32 {
    if at == sequence.first_at {
        return sequence.answer >> 1u;
    }
    if at == sequence.second_at {
        return sequence.answer & 1u;
    }
    return 2u + hash(sequence.key ^ at) % (SYMBOLS - 2u);
}

// Those of an invocation's own units that follow each other from `at`.
fn own_parameters(at: u32) -> vec4f {
    return vec4f(parameters[at], parameters[at + 1u], parameters[at + 2u], parameters[at + 3u]);
}

fn share(index: u32, at: u32, gradient: vec4f) {
    for (var u = 0u; u < 4u; u++) {
        shares[index][at + u] = gradient[u];
    }
}

@compute @workgroup_size(HIDDEN / 4u)
fn through_time(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let own = sequence(group.x);
    let unit = 4u * lane;
    // What goes from each unit into the own ones, and from the own ones into each.
    var into: array<vec4f, HIDDEN>;
    var out_of: array<vec4f, HIDDEN>;
    for (var k = 0u; k < HIDDEN; k++) {
        for (var u = 0u; u < 4u; u++) {
            into[k][u] = parameters[RECURRENT + (unit + u) * HIDDEN + k];
        }
        out_of[k] = own_parameters(RECURRENT + k * HIDDEN + unit);
    }
    var input: array<vec4f, SYMBOLS>;
    for (var s = 0u; s < SYMBOLS; s++) {
        input[s] = own_parameters(BIAS + unit) + own_parameters(INPUT + s * HIDDEN + unit);
    }

    var state = vec4f();
    for (var t = 0u; t <= LENGTH; t++) {
        for (var u = 0u; u < 4u; u++) {
            states[t][unit + u] = state[u];
        }
        workgroupBarrier();
        if t < LENGTH {
            var sum = input[symbol(own, t)];
            for (var k = 0u; k < HIDDEN; k++) {
                sum += into[k] * states[t][k];
            }
            // Some drivers' tanh overflows to NaN; beyond 15 it is 1 anyway.
            state = tanh(clamp(sum, vec4f(-15.0), vec4f(15.0)));
        }
    }

    if lane < CLASSES {
        var sum = parameters[READOUT_BIAS + lane];
        for (var k = 0u; k < HIDDEN; k++) {
            sum += parameters[READOUT + lane * HIDDEN + k] * states[LENGTH][k];
        }
        logits[lane] = sum;
    }
    workgroupBarrier();

    // Softmax and cross-entropy.
    var top = logits[0];
    for (var c = 1u; c < CLASSES; c++) {
        top = max(top, logits[c]);
    }
    var total = 0.0;
    for (var c = 0u; c < CLASSES; c++) {
        total += exp(logits[c] - top);
    }
    var by_state = vec4f();
    for (var c = 0u; c < CLASSES; c++) {
        let by_logit = (exp(logits[c] - top) / total - f32(c == own.answer)) / f32(BATCH);
        by_state += by_logit * own_parameters(READOUT + c * HIDDEN + unit);
        share(group.x, READOUT + c * HIDDEN + unit, by_logit * state);
        if lane == 0u {
            shares[group.x][READOUT_BIAS + c] = by_logit;
        }
    }
    if lane == 0u {
        shares[group.x][LOSS] = (log(total) + top - logits[own.answer]) / f32(BATCH);
    }

    var by_into: array<vec4f, HIDDEN>;
    var by_input: array<vec4f, SYMBOLS>;
    var by_bias = vec4f();
    for (var t = LENGTH; t > 0u; t--) {
        let delta = by_state * (1.0 - state * state);
        for (var u = 0u; u < 4u; u++) {
            deltas[t & 1u][unit + u] = delta[u];
            state[u] = states[t - 1u][unit + u];
        }
        workgroupBarrier();
        by_bias += delta;
        by_input[symbol(own, t - 1u)] += delta;
        by_state = vec4f();
        for (var k = 0u; k < HIDDEN; k++) {
            by_into[k] += delta * states[t - 1u][k];
            by_state += out_of[k] * deltas[t & 1u][k];
        }
    }

    share(group.x, BIAS + unit, by_bias);
    for (var s = 0u; s < SYMBOLS; s++) {
        share(group.x, INPUT + s * HIDDEN + unit, by_input[s]);
    }
    for (var k = 0u; k < HIDDEN; k++) {
        for (var u = 0u; u < 4u; u++) {
            shares[group.x][RECURRENT + (unit + u) * HIDDEN + k] = by_into[k][u];
        }
    }
}
