// What kernels compute and what a clip is, as src/layout.rs has it, where each field is described.

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
    raised: u32,
}

struct Adaptation {
    rule: u32,
    window: u32,
    steps: u32,
    reaction: u32,
    a: u32,
    b: u32,
    c: u32,
    d: u32,
    e: u32,
    f: u32,
    least: u32,
    most: u32,
}

struct Skipping {
    above: u32,
    sigma: u32,
    window: u32,
    first: u32,
    most: u32,
    flags: u32,
}

struct Inputs {
    loss: u32,
    norm: u32,
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
    raised: u32,
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
    momentum_share: u32,
    rectification: u32,
    growth: u32,
    backoff: u32,
    interval: u32,
    flags: u32,
    limit: u32,
    limit_eps: u32,
    limit_most: u32,
    reset_interval: u32,
    reset_warmup: u32,
    limit_delay: u32,
}

struct Counting {
    micro_batches: u32,
    sums: u32,
    steps: u32,
    ends: u32,
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
    skips: u32,
    mean_correction: u32,
    momentum_product: u32,
    gradient_correction: u32,
    reasons: u32,
    strikes: u32,
    spikes: u32,
    watched: u32,
}

struct Releasing {
    unit: i32,
    lot: u32,
    scale_low: u32,
    scale_high: u32,
    drop: i32,
    seed_low: u32,
    seed_high: u32,
}
