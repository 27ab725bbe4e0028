// An interval around the average of what earlier norms were brought to.

fn adapt(step: ptr<function, Step>, before: Window, window: Window, found: u32, limit: u32) {
    let begun = (*step).observed > 0u || adaptation.reaction == REACTION_FROM_ZERO;
    let average = select(0u, (*step).mean, (*step).observed > 0u);
    let norm = (*step).norm;
    let upper = f_mul(adaptation.a, average);
    if begun {
        let limit = select(INFINITY_BITS, max(upper, f_mul(adaptation.f, norm)), upper > 0u);
        (*step).threshold = bounded(limit);
    }
    let lower = max(adaptation.d, f_mul(adaptation.c, average));
    let least = select(lower, min(lower, f_mul(adaptation.e, norm)), adaptation.e > 0u);
    (*step).raised = min(least, (*step).threshold);
    let raised = select(0u, max(norm, (*step).raised), norm > 0u);
    let left = select(raised, (*step).threshold, norm > (*step).threshold);
    (*step).mean = left;
    if begun {
        (*step).mean = f_average(adaptation.b, average, left);
    }
}
