// The records of src/layout.rs, where each field is described.

struct ChunkRow {
    start: u32,
    slot_len: u32,
    partial: u32,
    segment: u32,
}

struct UnitRow {
    base: u32,
    slot: u32,
    first_unit: u32,
    units: u32,
    first: u32,
    len: u32,
    partial: u32,
    segment: u32,
    kept: u32,
    kept_high: u32,
    kept_low: u32,
    reduced: u32,
    reduced_high: u32,
    reduced_low: u32,
}

struct MapRow {
    start: u32,
    slot_len: u32,
    first: u32,
    segment: u32,
    low: u32,
    kept: u32,
    high: u32,
    outer: u32,
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
    stride: u32,
    lanes: u32,
    tensor: u32,
    segment: u32,
    before: u32,
    after: u32,
}

struct SegmentRow {
    first: u32,
    count: u32,
    limit: u32,
    step: u32,
    parameters: u32,
}

struct Job {
    serial: u32,
    runs: u32,
    first_row: u32,
    rows: u32,
    until: u32,
    unscale: u32,
    largest: u32,
    total: u32,
    adaptive: u32,
    begins: u32,
    parameters: u32,
    measures: u32,
    stages: u32,
    segment_serial: u32,
    segment_runs: u32,
    decided: u32,
}

// The f32 fields of all records below are bits: scalars are computed with integers, so that no driver
// changes them.
struct Setting {
    threshold: u32,
    lift: i32,
    unscale: u32,
    eps: u32,
    floor: u32,
    policy: u32,
    rule: u32,
    total: u32,
    below: u32,
}

struct Adaptation {
    rule: u32,
    window: u32,
    steps: u32,
    reaction: u32,
    a: u32,
    b: u32,
}

struct State {
    steps: u32,
    observed: u32,
    mean: u32,
    variance: u32,
    threshold: u32,
    alone: u32,
    counted: atomic<u32>,
    over: atomic<u32>,
}

struct Tally {
    steps: atomic<u32>,
    clipped_steps: atomic<u32>,
    skipped_steps: atomic<u32>,
    clipped: atomic<u32>,
    skipped: atomic<u32>,
    changed: atomic<u32>,
    unscale: u32,
    non_finite: atomic<u32>,
}

struct Outcome {
    norm: u32,
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

struct Hyper {
    lr: u32,
    decay: u32,
    share: u32,
    second_decay: u32,
    second_share: u32,
    eps: u32,
    growth: u32,
    backoff: u32,
    interval: u32,
    flags: u32,
}

struct Progress {
    scale: u32,
    unscale: u32,
    finite_steps: u32,
    updates: u32,
    moves: u32,
    share: u32,
    correction: u32,
    second_correction: u32,
}

struct JointRow {
    start: u32,
    slot_len: u32,
    first: u32,
    segment: u32,
    parameter: u32,
    moment: u32,
    second_moment: u32,
    tensor: u32,
}

struct JointTensor {
    lr_scale: u32,
    weight_decay: u32,
    low: u32,
    kept: u32,
    high: u32,
    outer: u32,
}
