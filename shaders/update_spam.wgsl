// gradient, parameter, two moments -> parameter, moments: SPAM.

// Steps since moments were last forgotten, or since the first step.
fn steps_since() -> u32 {
    if hyper.reset_interval == 0u {
        return progress.updates;
    }
    return progress.updates % hyper.reset_interval;
}

fn limits() -> bool {
    let least = min(progress.updates, steps_since());
    return hyper.limit < INFINITY_BITS && least >= hyper.limit_delay;
}

// Within the root of what a square may be, roots being compared since small squares underflow; NaN stays.
fn without_spike(g: f32, second: u32, finite: bool) -> f32 {
    let most = sqrt(within(bitcast<f32>(hyper.limit) * bitcast<f32>(second), finite));
    let limited = bitcast<u32>(most) | (bitcast<u32>(g) & 0x80000000u);
    return select(g, bitcast<f32>(limited), abs(g) > most);
}

fn stepped(own: Own, tensor: FusedTensor, gradient: u32, outcome: Outcome) -> Own {
    let finite = is_finite(gradient) && is_finite(own.parameter);
    let forgets = hyper.reset_interval != 0u && steps_since() == 0u;
    let first = select(own.first, 0u, forgets);
    let second = select(own.second, 0u, forgets);
    var g = penalised(gradient, own.parameter, tensor, finite);
    if limits() {
        g = without_spike(g, second, finite);
    }
    let moments = moments_of(first, second, g, finite);
    let parameter = moved_along(moments, own.parameter, tensor, finite);
    return Own(parameter, bitcast<u32>(moments.x), bitcast<u32>(moments.y));
}
