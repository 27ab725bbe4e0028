// The exponential average, which begins with the first norm.
fn averaged(step: Step, norm: u32) -> u32 {
    if step.observed == 0u {
        return norm;
    }
    return f_average(adaptation.b, step.mean, norm);
}
