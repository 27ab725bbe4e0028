// Root mean square norm (Zhang and Sennrich 2019): y = gain x / rms(x).

const EPS = 1e-5;

// An invocation a row.
@compute @workgroup_size(64)
fn norm(@builtin(global_invocation_id) id: vec3u) {
    let row = id.x * WIDTH;
    var squares = 0.0;
    for (var c = 0u; c < WIDTH; c++) {
        let x = activations[at.input + row + c];
        squares += x * x;
    }
    let inverse = inverseSqrt(squares / f32(WIDTH) + EPS);
    activations[at.kept + id.x] = inverse;
    for (var c = 0u; c < WIDTH; c++) {
        let x = activations[at.input + row + c];
        activations[at.output + row + c] = parameter(at.weight + c) * x * inverse;
    }
}

// With r = 1 / rms(x): dx = r gain dy - x r^3 mean(gain dy x). The residual stream's own derivative is added,
// in place.
@compute @workgroup_size(64)
fn norm_by_input(@builtin(global_invocation_id) id: vec3u) {
    let row = id.x * WIDTH;
    let inverse = activations[at.kept + id.x];
    var along = 0.0;
    for (var c = 0u; c < WIDTH; c++) {
        let by_normed = parameter(at.weight + c) * activations[at.derivative + row + c];
        along += by_normed * activations[at.input + row + c];
    }
    along *= inverse * inverse * inverse / f32(WIDTH);
    for (var c = 0u; c < WIDTH; c++) {
        let across = inverse * parameter(at.weight + c) * activations[at.derivative + row + c];
        let own = across - activations[at.input + row + c] * along;
        activations[at.output + row + c] = residual(row + c) + own;
    }
}

// An invocation a column, all rows one after the other.
@compute @workgroup_size(WIDTH)
fn norm_by_gain(@builtin(local_invocation_index) column: u32) {
    var sum = 0.0;
    for (var row = 0u; row < ROWS; row++) {
        let element = row * WIDTH + column;
        let normed = activations[at.input + element] * activations[at.kept + row];
        sum += activations[at.derivative + element] * normed;
    }
    gradients[at.weight + column] = sum;
}
