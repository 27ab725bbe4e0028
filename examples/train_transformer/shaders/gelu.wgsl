// GELU by tanh, as in GPT-2 (Hendrycks and Gimpel 2016): y = x/2 (1 + tanh(u)) with u = √(2/π) (x + 0.044715
// x³). An invocation an element.

const SLOPE = 0.7978845608;
const CUBIC = 0.044715;

// Some drivers' tanh overflows to NaN; beyond 15 it is 1 anyway.
fn bent(x: f32) -> f32 {
    return tanh(clamp(SLOPE * (x + CUBIC * x * x * x), -15.0, 15.0));
}

@compute @workgroup_size(64)
fn gelu(@builtin(global_invocation_id) id: vec3u) {
    let x = activations[at.input + id.x];
    activations[at.output + id.x] = 0.5 * x * (1.0 + bent(x));
}

// In place where output and derivative are the same.
@compute @workgroup_size(64)
fn gelu_by_input(@builtin(global_invocation_id) id: vec3u) {
    let x = activations[at.input + id.x];
    let t = bent(x);
    let slope = 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * SLOPE * (1.0 + 3.0 * CUBIC * x * x);
    activations[at.output + id.x] = activations[at.derivative + id.x] * slope;
}
