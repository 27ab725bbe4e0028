// What every kernel knows of the data. Constants stand in front of this text; net.rs writes them.

// PCG's output function (O'Neill 2014) as a hash.
fn hash(x: u32) -> u32 {
    let state = x * 747796405u + 2891336453u;
    let word = ((state >> ((state >> 28u) + 4u)) ^ state) * 277803737u;
    return (word >> 22u) ^ word;
}

// Where in the text a sequence of a step begins: LENGTH symbols, and after each the one to guess.
fn begin(step: u32, sequence: u32) -> u32 {
    return hash(hash(hash(SEED) + step) + sequence) % (TEXT - LENGTH);
}

// Places in buffers of vectors of four.
fn state_at(sequence: u32, time: u32) -> u32 {
    return (sequence * (LENGTH + 1u) + time) * (HIDDEN / 4u);
}

fn delta_at(sequence: u32, time: u32) -> u32 {
    return (sequence * LENGTH + time) * (HIDDEN / 4u);
}

fn logit_at(sequence: u32, time: u32) -> u32 {
    return (sequence * LENGTH + time) * (SYMBOLS / 4u);
}
