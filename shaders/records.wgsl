// Records of gradclip, version 1 of their layout; the Rust module gradclip::records describes each field.

struct Outcome {
    norm: f32,
    norm_mantissa: u32,
    norm_exponent: i32,
    threshold: f32,
    coefficient: f32,
    scale: f32,
    rescale: f32,
    action: u32,
    flags: u32,
    non_finite: u32,
    first_non_finite: u32,
    unscale: f32,
}

struct Progress {
    scale: f32,
    unscale: f32,
    finite_steps: u32,
    updates: u32,
    moves: u32,
    share: f32,
    correction: f32,
    second_correction: f32,
}

struct Sum {
    mantissa: array<u32, 3>,
    exponent: u32,
    non_finite: u32,
    nan: u32,
    first: u32,
    pad: u32,
}

struct Tally {
    steps: u32,
    clipped_steps: u32,
    skipped_steps: u32,
    clipped: u32,
    skipped: u32,
    changed: u32,
    unscale: f32,
    non_finite: u32,
}
