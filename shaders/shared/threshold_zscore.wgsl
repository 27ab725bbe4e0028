// A number of standard deviations above the mean, both averaged after a warm-up.

const SMALL: u32 = 0x358637bdu; // 1e-6, added to a standard deviation

// The mean squared distance from the mean.
fn variance_of(window: Window, mean: u32) -> u32 {
    var sum = 0u;
    for (var i = 0u; i < window.filled; i++) {
        let distance = f_distance(norm_in(window, i), mean);
        sum = f_add(sum, f_mul(distance, distance));
    }
    return f_div(sum, f_of(max(window.filled, 1u)));
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

fn found_in(before: Window, window: Window, lane: u32) -> u32 {
    return mean_of(window, lane);
}

fn adapt(step: ptr<function, Step>, before: Window, window: Window, found: u32, limit: u32) {
    if (*step).observed < adaptation.steps {
        if window.filled == adaptation.steps {
            (*step).mean = found;
            (*step).variance = variance_of(window, found);
        }
        return;
    }
    (*step).threshold = bounded(spike_threshold(*step));
    let clipped = min((*step).norm, (*step).threshold);
    let mean = f_average(adaptation.b, (*step).mean, clipped);
    let distance = f_distance(clipped, mean);
    (*step).mean = mean;
    (*step).variance = f_average(adaptation.b, (*step).variance, f_mul(distance, distance));
}
