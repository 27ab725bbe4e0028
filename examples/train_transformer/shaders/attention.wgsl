// Causal attention without a matrix of probabilities, after FlashAttention-2 (Dao 2023): the forward kernel
// keeps the logarithm of each row's sum, from which the backward ones compute probabilities again. A
// workgroup a head of a sequence, an invocation a token.

const PARTS = HEAD / 4u;
alias Vector = array<vec4f, PARTS>;

// Of all tokens of the head: keys and values, or queries and derivatives.
var<workgroup> firsts: array<Vector, CONTEXT>;
var<workgroup> seconds: array<Vector, CONTEXT>;

struct Place {
    // The row of the token, and a number a token and head.
    row: u32,
    number: u32,
    // First element of the head in a row of queries, keys and values side by side, and in a row of the
    // output.
    query: u32,
    output: u32,
}

fn place(group: u32, token: u32) -> Place {
    let row = (group / HEADS) * CONTEXT + token;
    let head = (group % HEADS) * HEAD;
    return Place(row, group * CONTEXT + token, row * 3u * WIDTH + head, row * WIDTH + head);
}

fn vector(index: u32) -> Vector {
    var vector: Vector;
    for (var i = 0u; i < PARTS; i++) {
        for (var j = 0u; j < 4u; j++) {
            vector[i][j] = activations[index + 4u * i + j];
        }
    }
    return vector;
}

fn write(index: u32, vector: Vector) {
    for (var i = 0u; i < PARTS; i++) {
        for (var j = 0u; j < 4u; j++) {
            activations[index + 4u * i + j] = vector[i][j];
        }
    }
}

fn inner(a: Vector, b: Vector) -> f32 {
    var sum = vec4f();
    for (var i = 0u; i < PARTS; i++) {
        sum += a[i] * b[i];
    }
    return dot(sum, vec4f(1.0));
}

// a x + b y
fn combined(a: f32, x: Vector, b: f32, y: Vector) -> Vector {
    var sum: Vector;
    for (var i = 0u; i < PARTS; i++) {
        sum[i] = a * x[i] + b * y[i];
    }
    return sum;
}

fn score(query: Vector, key: Vector) -> f32 {
    return inner(query, key) * inverseSqrt(f32(HEAD));
}

@compute @workgroup_size(CONTEXT)
fn attend(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) token: u32) {
    let own = place(group.x, token);
    let query = vector(at.input + own.query);
    firsts[token] = vector(at.input + own.query + WIDTH);
    seconds[token] = vector(at.input + own.query + 2u * WIDTH);
    workgroupBarrier();
    var largest = score(query, firsts[0]);
    var total = 1.0;
    var sum = seconds[0];
    for (var k = 1u; k <= token; k++) {
        let score = score(query, firsts[k]);
        let next = max(largest, score);
        let fade = exp(largest - next);
        let weight = exp(score - next);
        total = weight + fade * total;
        sum = combined(weight, seconds[k], fade, sum);
        largest = next;
    }
    write(at.output + own.output, combined(1.0 / total, sum, 0.0, sum));
    activations[at.kept + own.number] = largest + log(total);
}

// dq = Σ p (do·v − do·o) k / √HEAD over the keys of a query.
@compute @workgroup_size(CONTEXT)
fn attend_by_query(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) token: u32) {
    let own = place(group.x, token);
    let query = vector(at.input + own.query);
    let derivative = vector(at.derivative + own.output);
    let delta = inner(derivative, vector(at.result + own.output));
    let logarithm = activations[at.kept + own.number];
    firsts[token] = vector(at.input + own.query + WIDTH);
    seconds[token] = vector(at.input + own.query + 2u * WIDTH);
    workgroupBarrier();
    var by_query: Vector;
    for (var k = 0u; k <= token; k++) {
        let probability = exp(score(query, firsts[k]) - logarithm);
        let by_score = probability * (inner(derivative, seconds[k]) - delta) * inverseSqrt(f32(HEAD));
        by_query = combined(by_score, firsts[k], 1.0, by_query);
    }
    write(at.output + own.query, by_query);
    activations[at.deltas + own.number] = delta;
}

// dk = Σ p (do·v − do·o) q / √HEAD and dv = Σ p do over the queries that see a key.
@compute @workgroup_size(CONTEXT)
fn attend_by_key(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) token: u32) {
    let own = place(group.x, token);
    let key = vector(at.input + own.query + WIDTH);
    let value = vector(at.input + own.query + 2u * WIDTH);
    firsts[token] = vector(at.input + own.query);
    seconds[token] = vector(at.derivative + own.output);
    workgroupBarrier();
    var by_key: Vector;
    var by_value: Vector;
    for (var q = token; q < CONTEXT; q++) {
        let number = group.x * CONTEXT + q;
        let probability = exp(score(firsts[q], key) - activations[at.kept + number]);
        let delta = activations[at.deltas + number];
        let by_score = probability * (inner(seconds[q], value) - delta) * inverseSqrt(f32(HEAD));
        by_key = combined(by_score, firsts[q], 1.0, by_key);
        by_value = combined(probability, seconds[q], 1.0, by_value);
    }
    write(at.output + own.query + WIDTH, by_key);
    write(at.output + own.query + 2u * WIDTH, by_value);
}
