// The threshold below which a share of the segments lies.

// C after the last step, whose segments were counted.
fn adapt(step: ptr<function, Step>, before: Window, window: Window, found: u32, limit: u32) {
    let counted = atomicLoad(&states[limit].counted);
    let over = atomicLoad(&states[limit].over);
    if states[limit].steps == 0u {
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
    (*step).mean = bounded((*step).mean);
    (*step).threshold = (*step).mean;
}
