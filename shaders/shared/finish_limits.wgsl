@group(0) @binding(11) var<storage, read_write> states: array<State>;
@group(0) @binding(12) var<storage, read_write> history: array<u32>;

// An invocation a limit: these rules remember no norms.
fn adapt_all(lane: u32) {
    if lane < job.adaptive {
        let step = limit_before(lane);
        end_limit(step, window_before(step, lane), window_now(step, lane), 0u, lane);
    }
}
