// A multiple of the mean of the last norms.

fn found_in(before: Window, window: Window, lane: u32) -> u32 {
    return mean_of(before, lane);
}

fn adapt(step: ptr<function, Step>, before: Window, window: Window, found: u32, limit: u32) {
    if before.filled > 0u {
        (*step).threshold = bounded(f_mul(adaptation.a, found));
    }
}
