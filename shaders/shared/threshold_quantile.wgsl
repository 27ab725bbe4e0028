// The threshold below which a share of the segments lies.

// C after the last step, whose segments were counted.
fn adapt(step: ptr<function, Step>, before: Window, window: Window, found: u32, limit: u32) {
    let counted = atomicLoad(&states[limit].counted);
    let over = atomicLoad(&states[limit].over);
    let share = f_div(f_of(counted - over), f_of(max(counted, 1u)));
    follow(step, limit, counted > 0u, share, adaptation.a);
}
