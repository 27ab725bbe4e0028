// A multiple of the exponential average of norms.

fn adapt(step: ptr<function, Step>, before: Window, window: Window, found: u32, limit: u32) {
    if (*step).observed > 0u {
        (*step).threshold = bounded(f_mul(adaptation.a, (*step).mean));
    }
    (*step).mean = averaged(*step, (*step).norm);
}
