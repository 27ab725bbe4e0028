// Where a plan says that things lie: rows of tables and jobs, as src/layout.rs has them, where each field is described.

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

struct FusedRow {
    start: u32,
    slot_len: u32,
    first: u32,
    segment: u32,
    parameter: u32,
    moment: u32,
    second_moment: u32,
    largest_moment: u32,
    half: u32,
    tensor: u32,
}

struct MeasuredRow {
    row: FusedRow,
    pad: array<u32, 2>,
    update: Partial,
    parameter: Partial,
}

struct FusedTensor {
    lr_scale: u32,
    weight_decay: u32,
    ratio: u32,
    pair: u32,
    elements: u32,
    seed: array<u32, 2>,
    low: u32,
    kept: u32,
    high: u32,
    outer: u32,
}

struct Coalescing {
    rows: u32,
    width: u32,
    entries: u32,
    added: u32,
    first_index: u32,
    count: u32,
    first_value: u32,
    window_bits: u32,
}

struct TablePart {
    first: u32,
    len: u32,
    width: u32,
}

struct ExampleRow {
    start: u32,
    slot_len: u32,
    first: u32,
    segment: u32,
    to: u32,
    stride: u32,
    examples: u32,
    tensor: u32,
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
