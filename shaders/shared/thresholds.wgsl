// The rules of thresholds that adapt, and what a limit goes through in a step; src/cpu/threshold.rs is the twin,
// to the bit. ADAPT is the rule: each is compiled by itself, since all together take seconds to compile.

const SMALL: u32 = 0x358637bdu; // 1e-6, beside a standard deviation
const HUNDRED: u32 = 0x42c80000u;

var<workgroup> shared_below: atomic<u32>;
var<workgroup> shared_largest: atomic<u32>;
var<workgroup> shared_least: atomic<u32>;

// The norms of a limit: those kept, with this step's among them where it has come in.
struct Window {
    first: u32,
    filled: u32,
    // Place and value of this step's norm; place NONE where it has not come in.
    place: u32,
    norm: u32,
}

fn norm_in(window: Window, i: u32) -> u32 {
    if i == window.place {
        return window.norm;
    }
    return history[window.first + i];
}

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

// floor(x) for x below 2^23.
fn whole_part(x: u32) -> u32 {
    if x < ONE_BITS {
        return 0u;
    }
    return ((x & 0x7fffffu) | 0x800000u) >> (150u - (x >> 23u));
}

// The mean of the norms, summed as integers in units of the largest one's exponent: in any order the same.
fn mean_of(window: Window, lane: u32) -> u32 {
    workgroupBarrier();
    if lane == 0u {
        atomicStore(&shared_largest, 0u);
        reset_limbs();
    }
    workgroupBarrier();
    var top = 0u;
    for (var i = lane; i < window.filled; i += WORKGROUP) {
        top = max(top, norm_in(window, i));
    }
    atomicMax(&shared_largest, top);
    workgroupBarrier();
    let exponent = max(atomicLoad(&shared_largest) >> 23u, 1u);
    var mine = U96(0u, 0u, 0u);
    for (var i = lane; i < window.filled; i += WORKGROUP) {
        let bits = norm_in(window, i);
        let field = max(bits >> 23u, 1u);
        let moved = shr64(U64(0u, bits - ((field - 1u) << 23u)), exponent - field);
        mine = add96(mine, U96(moved.lo, moved.hi, 0u));
    }
    gather_limbs(mine);
    workgroupBarrier();
    let sum = normalised96(gathered_limbs(), i32(exponent) - 182);
    return f_div(saturated(rounded(sum, F32_MIN_EXPONENT)), f_of(max(window.filled, 1u)));
}

// The mean squared distance from the mean.
fn variance_of(window: Window, mean: u32) -> u32 {
    var sum = 0u;
    for (var i = 0u; i < window.filled; i++) {
        let distance = f_distance(norm_in(window, i), mean);
        sum = f_add(sum, f_mul(distance, distance));
    }
    return f_div(sum, f_of(max(window.filled, 1u)));
}

// A limit in this step: what is known of it, and what comes of that.
struct Step {
    norm: u32,
    observed: u32,
    measured: bool,
    threshold: u32,
    mean: u32,
    variance: u32,
    alone: u32,
}

// The exponential average, which begins with the first norm.
fn averaged(step: Step, norm: u32) -> u32 {
    if step.observed == 0u {
        return norm;
    }
    return f_average(adaptation.b, step.mean, norm);
}

fn by_average(step: ptr<function, Step>) {
    if (*step).observed > 0u {
        (*step).threshold = f_mul(adaptation.a, (*step).mean);
    }
    (*step).mean = averaged(*step, (*step).norm);
}

// Where a norm far above the mean is reduced to; else something that does not clip it.
fn spike_threshold(step: Step) -> u32 {
    let deviation = f_sqrt(step.variance);
    let divisor = f_add(deviation, SMALL);
    let above = select(0u, f_distance(step.norm, step.mean), step.norm > step.mean);
    let score = f_div(above, divisor);
    if score <= adaptation.a {
        return max(step.norm, f_add(step.mean, f_mul(adaptation.a, divisor)));
    }
    if adaptation.reaction == REACTION_MEAN {
        return step.mean;
    }
    var rest = f_mul(adaptation.a, deviation);
    if adaptation.reaction == REACTION_RECIPROCAL {
        rest = f_div(rest, f_div(score, adaptation.a));
    }
    return f_add(step.mean, rest);
}

fn by_score(step: ptr<function, Step>, window: Window, window_mean: u32) {
    if (*step).observed < adaptation.steps {
        if window.filled == adaptation.steps {
            (*step).mean = window_mean;
            (*step).variance = variance_of(window, window_mean);
        }
        return;
    }
    (*step).threshold = spike_threshold(*step);
    let clipped = min((*step).norm, (*step).threshold);
    let mean = f_average(adaptation.b, (*step).mean, clipped);
    let distance = f_distance(clipped, mean);
    (*step).mean = mean;
    (*step).variance = f_average(adaptation.b, (*step).variance, f_mul(distance, distance));
}

// During the warm-up the limit on the whole set holds, and the least of what it leaves is kept.
fn by_tensor(step: ptr<function, Step>, steps: u32) {
    if steps < adaptation.steps {
        let sum = sums[job.total];
        var setting = settings[arrayLength(&settings) - 1u];
        setting.unscale = with_loss_scale(setting.unscale);
        let total = decide(sum, setting, sum);
        let clipped = f_mul((*step).norm, total.coefficient);
        (*step).measured = (*step).measured && sum.non_finite == 0u;
        (*step).threshold = INFINITY_BITS;
        (*step).mean = min(clipped, select((*step).mean, LARGEST_BITS, (*step).observed == 0u));
        return;
    }
    (*step).alone = 1u;
    (*step).threshold = INFINITY_BITS;
    if (*step).observed > 0u {
        (*step).threshold = f_mul(adaptation.a, (*step).mean);
    }
    (*step).mean = averaged(*step, min((*step).norm, (*step).threshold));
}

// C after the last step, whose segments were counted.
fn by_quantile(step: ptr<function, Step>, steps: u32, counted: u32, over: u32) {
    if steps == 0u {
        (*step).mean = (*step).threshold;
    } else if counted > 0u {
        let share = f_div(f_of(counted - over), f_of(counted));
        let factor = f_exp(f_mul(adaptation.b, f_distance(share, adaptation.a)));
        if share > adaptation.a {
            (*step).mean = f_div((*step).mean, factor);
        } else {
            (*step).mean = f_mul((*step).mean, factor);
        }
    }
    (*step).measured = true;
    (*step).threshold = (*step).mean;
}

// The rule, given what the workgroup found in the window.
fn adapt(step: ptr<function, Step>, before: Window, window: Window, found: u32, limit: u32) {
    switch ADAPT {
        case ADAPT_MEAN: {
            if before.filled > 0u {
                (*step).threshold = f_mul(adaptation.a, found);
            }
        }
        case ADAPT_AVERAGE: {
            by_average(step);
        }
        case ADAPT_PERCENTILE: {
            if window.filled > 0u {
                (*step).threshold = found;
            }
        }
        case ADAPT_ZSCORE: {
            by_score(step, window, found);
        }
        case ADAPT_ADAGC: {
            by_tensor(step, states[limit].steps);
        }
        case ADAPT_QUANTILE: {
            by_quantile(step, states[limit].steps, atomicLoad(&states[limit].counted), atomicLoad(&states[limit].over));
        }
        default: {}
    }
}

// A limit before this step.
fn limit_before(limit: u32) -> Step {
    var step = Step();
    step.threshold = settings[limit].threshold;
    step.observed = states[limit].observed;
    step.mean = states[limit].mean;
    step.variance = states[limit].variance;
    // The quantile rule counts segments, and needs no norm.
    if ADAPT != ADAPT_QUANTILE {
        let sum = sums[limit];
        step.norm = saturated(unscaled_norm(sum, with_loss_scale(settings[limit].unscale)));
        step.measured = sum.non_finite == 0u;
    }
    return step;
}

fn place_of(step: Step) -> u32 {
    return step.observed % max(adaptation.window, 1u);
}

// The norms kept so far.
fn window_before(step: Step, limit: u32) -> Window {
    return Window(limit * adaptation.window, min(step.observed, adaptation.window), NONE, 0u);
}

// Those, and this step's.
fn window_now(step: Step, limit: u32) -> Window {
    let filled = min(step.observed + u32(step.measured), adaptation.window);
    return Window(limit * adaptation.window, filled, select(NONE, place_of(step), step.measured), step.norm);
}

// What all lanes find in the norms of a limit together.
fn found_in(before: Window, window: Window, lane: u32) -> u32 {
    if ADAPT == ADAPT_MEAN {
        return mean_of(before, lane);
    }
    if ADAPT == ADAPT_ZSCORE {
        return mean_of(window, lane);
    }
    if ADAPT == ADAPT_PERCENTILE {
        return percentile_of(window, lane);
    }
    return 0u;
}

// The threshold of this step, and what the next one remembers.
fn end_limit(known: Step, before: Window, window: Window, found: u32, limit: u32) {
    var step = known;
    let steps = states[limit].steps;
    if settings[limit].rule == RULE_FREE {
        step = Step();
        step.threshold = INFINITY_BITS;
    } else {
        adapt(&step, before, window, found, limit);
    }
    if step.measured {
        states[limit].observed = step.observed + 1u;
        states[limit].mean = step.mean;
        states[limit].variance = step.variance;
        if adaptation.window > 0u {
            history[window.first + place_of(known)] = step.norm;
        }
    }
    states[limit].steps = steps + 1u;
    states[limit].threshold = step.threshold;
    states[limit].alone = step.alone;
    atomicStore(&states[limit].counted, 0u);
    atomicStore(&states[limit].over, 0u);
}
