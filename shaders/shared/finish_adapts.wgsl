@group(0) @binding(11) var<storage, read_write> states: array<State>;
@group(0) @binding(12) var<storage, read_write> history: array<u32>;

// Rules without a window take one invocation a limit; those with one ask all lanes, limit by limit.
const WINDOWED: bool = ADAPT == ADAPT_MEAN || ADAPT == ADAPT_PERCENTILE || ADAPT == ADAPT_ZSCORE;

fn adapt_all(lane: u32) {
    if !WINDOWED {
        if lane < job.adaptive {
            let step = limit_before(lane);
            end_limit(step, window_before(step, lane), window_now(step, lane), 0u, lane);
        }
        return;
    }
    for (var limit = 0u; limit < job.adaptive; limit++) {
        let step = limit_before(limit);
        let before = window_before(step, limit);
        let window = window_now(step, limit);
        let found = found_in(before, window, lane);
        if lane == 0u {
            end_limit(step, before, window, found, limit);
        }
    }
}
