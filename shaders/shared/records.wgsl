// The records of src/layout.rs, where each field is described.

struct ChunkRow {
    start: u32,
    slot_len: u32,
    partial: u32,
    segment: u32,
}

struct SeamRow {
    slot: u32,
    word: u32,
    low: u32,
    high: u32,
}

struct Partial {
    lo: u32,
    hi: u32,
    exponent: u32,
    non_finite: u32,
}

struct Sum {
    mantissa: array<u32, 3>,
    exponent: u32,
    non_finite: u32,
    nan: u32,
    first: u32,
    pad: u32,
}

struct Run {
    first: u32,
    count: u32,
    target_index: u32,
    pad: u32,
}

struct Job {
    serial: u32,
    runs: u32,
    first_row: u32,
    rows: u32,
}

struct Setting {
    threshold: u32, // f32 bits: thresholds are compared and divided as integers
    unscale: u32,
    eps: u32,
    policy: u32,
}

struct Outcome {
    norm: u32, // the f32 fields are written as bits, so that no driver changes them
    norm_mantissa: u32,
    norm_exponent: i32,
    threshold: u32,
    coefficient: u32,
    scale: u32,
    rescale: u32,
    action: u32,
    flags: u32,
    non_finite: u32,
    first_non_finite: u32,
    unscale: u32,
}
