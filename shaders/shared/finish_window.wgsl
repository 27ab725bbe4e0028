@group(0) @binding(11) var<storage, read_write> states: array<State>;
@group(0) @binding(12) var<storage, read_write> history: array<u32>;

// All lanes search the norms of the only limit.
fn adapt_all(lane: u32) {
    let step = limit_before(0u);
    let before = window_before(step, 0u);
    let window = window_now(step, 0u);
    let found = found_in(before, window, lane);
    if lane < job.adaptive {
        end_limit(step, before, window, found, 0u);
    }
}
