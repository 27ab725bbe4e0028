// A multiple of a tensor's own average norm.

// During the warm-up the limit on the whole set holds, and the least of what it leaves is kept.
fn adapt(step: ptr<function, Step>, before: Window, window: Window, found: u32, limit: u32) {
    if states[limit].steps < adaptation.steps {
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
    (*step).threshold = bounded(INFINITY_BITS);
    if (*step).observed > 0u {
        (*step).threshold = bounded(f_mul(adaptation.a, (*step).mean));
    }
    (*step).mean = averaged(*step, min((*step).norm, (*step).threshold));
}
