// What all kernels bind. Constants and the records of the library stand in front of this text; gpu.rs writes
// them.

// bf16, two elements a word, the first in the low half.
@group(0) @binding(0) var<storage, read> parameters: array<u32>;
// In the places of the parameters, f32. Each is written once a micro-batch, by one invocation.
@group(0) @binding(1) var<storage, read_write> gradients: array<f32>;
@group(0) @binding(2) var<storage, read_write> activations: array<f32>;
// Symbols, one a word.
@group(0) @binding(3) var<storage, read> text: array<u32>;
// Micro-batches so far: the net counts them itself, and so the host has nothing to write.
@group(0) @binding(4) var<storage, read_write> batch: u32;
// The mean loss of each micro-batch of a step.
@group(0) @binding(5) var<storage, read_write> losses: array<f32, MICRO_BATCHES>;
// The loss scale, as the library keeps it.
@group(0) @binding(6) var<uniform> progress: ClipProgress;
@group(0) @binding(7) var<uniform> at: Operands;

// Where a dispatch reads and writes: first elements in `activations`; `weight` in `parameters` and
// `gradients` alike. Matrices are row-major, and have a row a token.
struct Operands {
    input: u32,
    output: u32,
    weight: u32,
    // What the forward kernel wrote, and the loss by it.
    result: u32,
    derivative: u32,
    // What is added to the result, or NONE.
    residual: u32,
    // A number a row that the forward kernel keeps for the backward one.
    kept: u32,
    // As kept, from one backward kernel to the other.
    deltas: u32,
    // Rows and columns of a matrix of weights.
    inputs: u32,
    outputs: u32,
}

fn parameter(index: u32) -> f32 {
    let word = parameters[index / 2u];
    return bitcast<f32>(select(word << 16u, word & 0xffff0000u, index % 2u == 1u));
}

fn residual(index: u32) -> f32 {
    if at.residual == NONE {
        return 0.0;
    }
    return activations[at.residual + index];
}

// PCG's output function (O'Neill 2014) as a hash.
fn hash(x: u32) -> u32 {
    let state = x * 747796405u + 2891336453u;
    let word = ((state >> ((state >> 28u) + 4u)) ^ state) * 277803737u;
    return (word >> 22u) ^ word;
}

// Where in the text a sequence of this micro-batch begins: a function of seed, micro-batch and sequence
// alone, so a run that goes on from a checkpoint reads what it would have read.
fn sequence(index: u32) -> u32 {
    return hash(hash(hash(SEED) + batch) + index) % (SYMBOLS - CONTEXT);
}

// The symbol of a row, and with an offset of 1 the one to be foretold.
fn symbol(row: u32, offset: u32) -> u32 {
    return text[sequence(row / CONTEXT) + row % CONTEXT + offset];
}
