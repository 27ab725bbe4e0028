// A percentile of the last norms.

var<workgroup> shared_below: atomic<u32>;
var<workgroup> shared_least: atomic<u32>;

const HUNDRED: u32 = 0x42c80000u;

fn count_below(window: Window, bound: u32, lane: u32) -> u32 {
    workgroupBarrier();
    if lane == 0u {
        atomicStore(&shared_below, 0u);
    }
    workgroupBarrier();
    var below = 0u;
    for (var i = lane; i < window.filled; i += WORKGROUP) {
        below += u32(norm_in(window, i) < bound);
    }
    atomicAdd(&shared_below, below);
    workgroupBarrier();
    return atomicLoad(&shared_below);
}

// The k-th smallest norm, k from 0, bit by bit: positive f32 sort as their bits.
fn smallest(window: Window, k: u32, lane: u32) -> u32 {
    var value = 0u;
    for (var bit = 0x40000000u; bit > 0u; bit >>= 1u) {
        let candidate = value | bit;
        let below = count_below(window, candidate, lane);
        value = select(value, candidate, below <= k);
    }
    return value;
}

// The smallest norm above `value`, or `value` itself where more than k + 1 norms are not above it.
fn next_smallest(window: Window, k: u32, value: u32, lane: u32) -> u32 {
    if lane == 0u {
        atomicStore(&shared_least, LARGEST_BITS);
    }
    let up_to = count_below(window, value + 1u, lane);
    var least = LARGEST_BITS;
    for (var i = lane; i < window.filled; i += WORKGROUP) {
        let norm = norm_in(window, i);
        least = min(least, select(norm, LARGEST_BITS, norm <= value));
    }
    atomicMin(&shared_least, least);
    workgroupBarrier();
    return select(atomicLoad(&shared_least), value, up_to > k + 1u);
}

// floor(x) for x below 2^23.
fn whole_part(x: u32) -> u32 {
    if x < ONE_BITS {
        return 0u;
    }
    return normal_mantissa_of(x) >> (150u - (x >> 23u));
}

// Between the two nearest ranks, as numpy interpolates.
fn percentile_of(window: Window, lane: u32) -> u32 {
    let last = max(window.filled, 1u) - 1u;
    let rank = f_div(f_mul(adaptation.a, f_of(last)), HUNDRED);
    let k = whole_part(rank);
    let t = f_distance(rank, f_of(k));
    let a = smallest(window, k, lane);
    let above = next_smallest(window, k, a, lane);
    let b = select(above, a, k == last);
    let gap = f_distance(b, a);
    if t < 0x3f000000u {
        return f_add(a, f_mul(gap, t));
    }
    return f_distance(b, f_mul(gap, f_distance(ONE_BITS, t)));
}

// With this step's norm, or without.
fn searched(before: Window, window: Window) -> Window {
    if adaptation.reaction == REACTION_PAST {
        return before;
    }
    return window;
}

fn found_in(before: Window, window: Window, lane: u32) -> u32 {
    return percentile_of(searched(before, window), lane);
}

fn adapt(step: ptr<function, Step>, before: Window, window: Window, found: u32, limit: u32) {
    if searched(before, window).filled > 0u {
        (*step).threshold = bounded(found);
    }
}
