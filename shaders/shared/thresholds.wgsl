// What a limit that adapts goes through in a step; src/cpu/threshold.rs is the twin, to the bit. Each rule is a part of its own,
// threshold_*.wgsl, and compiled by itself, since all together take seconds to compile. It says what all lanes find in the norms
// of a limit together, `found_in`, and what follows from that, `adapt`.

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

// A limit in this step: what is known of it, and what comes of that.
struct Step {
    norm: u32,
    observed: u32,
    measured: bool,
    threshold: u32,
    mean: u32,
    variance: u32,
    alone: u32,
    raised: u32,
}

fn bounded(threshold: u32) -> u32 {
    return min(max(threshold, adaptation.least), adaptation.most);
}

// A limit before this step.
fn limit_before(limit: u32) -> Step {
    var step = Step();
    step.threshold = bounded(settings[limit].threshold);
    step.observed = states[limit].observed;
    step.mean = states[limit].mean;
    step.variance = states[limit].variance;
    // The quantile rules count segments, and need no norm.
    if ADAPT != ADAPT_QUANTILE && ADAPT != ADAPT_NOISY_QUANTILE {
        let sum = sums[limit];
        step.norm = saturated(unscaled_norm(sum, with_loss_scale(settings[limit].unscale)));
        step.measured = sum.non_finite == 0u && !leaves_out();
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
    states[limit].raised = step.raised;
    atomicStore(&states[limit].counted, 0u);
    atomicStore(&states[limit].over, 0u);
}
